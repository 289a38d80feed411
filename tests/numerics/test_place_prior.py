"""What places sell against its closed form, a user taken out of it, and a world of two branches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from raymeta.algorithms import presets
from raymeta.data.events import (
    History,
    SupportView,
    distinct_items,
    last_places,
    pad_items,
    placed_items,
    support_from_events,
    with_own_items,
)
from raymeta.evaluation.baselines.places import PlacePopularity
from raymeta.models.cooccurrence import cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.models.place_prior import PRIOR_USERS, PlacePrior
from raymeta.types import Examples, TaskBatch
from tests.helpers.places import ITEMS, PLACES, shoppers

VIEW = SupportView(64, (0,), places=("north", "south", "east"))


def counted(histories: list[History]) -> PlacePrior:
    items, places = placed_items(histories, (0,))
    return PlacePrior.count(places, items, (PLACES, ITEMS))


def rows_of(histories: list[History]) -> Examples:
    return support_from_events(histories, VIEW)


def one(rows: Examples) -> Examples:
    return {name: value[0] for name, value in rows.items()}


def test_the_ratio_is_that_of_dirichlet_smoothed_shares() -> None:
    users = shoppers(40, seed=1)
    prior = counted(users)
    seen = np.zeros((PLACES, ITEMS))
    for user in users:
        for item in distinct_items(user, (0,)):
            (where,) = last_places(user, np.array([item]))
            if where >= 0:
                seen[where, item] += 1
    share = (seen.sum(0) + 1) / (seen.sum() + ITEMS)
    mass = PRIOR_USERS * seen.sum() / len(users)
    expected = np.log((seen + mass * share) / ((seen.sum(1, keepdims=True) + mass) * share))
    np.testing.assert_allclose(prior.vectors, expected, atol=1e-5)


def test_a_place_that_nobody_was_at_says_nothing() -> None:
    here = replace(shoppers(1, seed=2)[0])
    prior = counted([replace(here, place=np.zeros_like(here.place))] * 4)
    torch.testing.assert_close(prior.vectors[1:], torch.zeros(PLACES - 1, ITEMS))


def test_a_support_is_the_mean_of_its_known_places() -> None:
    prior = counted(shoppers(40, seed=1))
    where = np.array([0, 2, -1, 2])
    history = shoppers(1, seed=3)[0].where(slice(0, 4))
    history = replace(history, place=where, item=np.arange(4))
    own = prior.of_support(one(rows_of([history])))
    expected = (prior.vectors[0] + 2 * prior.vectors[2]) / 3
    torch.testing.assert_close(own, expected)
    unknown = replace(history, place=np.full(4, -1))
    assert prior.of_support(one(rows_of([unknown]))).abs().max() == 0


@pytest.mark.parametrize("dim", [PLACES, 8])
def test_as_many_columns_as_places_lose_nothing(dim: int) -> None:
    prior = counted(shoppers(40, seed=1))
    served = prior.served(dim)
    assert served.item_vectors is not None
    torch.testing.assert_close(
        served.vectors @ served.item_vectors.T, prior.vectors, atol=1e-5, rtol=1e-4
    )


def test_a_user_is_taken_out_of_the_counts_exactly() -> None:
    users = shoppers(30, seed=4)
    whole = counted(users)
    assert whole.counts is not None
    assert whole.prior is not None
    support = rows_of([users[7].where(slice(0, 6))])
    known = one(with_own_items(support, [users[7]], (0,), VIEW))
    items = distinct_items(users[7], (0,))
    places = last_places(users[7], items)
    told = places >= 0
    without = whole.counts.clone()
    without[places[told], items[told]] -= 1
    change = ((without + whole.prior) / (whole.counts + whole.prior)).log()
    where = known["place"][known["mask"] & (known["place"] >= 0)]
    share = torch.bincount(where, minlength=PLACES) / len(where)
    torch.testing.assert_close(whole.correction(known), share @ change)
    assert whole.correction(known).abs().max() > 1e-3


def test_the_baseline_is_the_mean_over_the_known_places() -> None:
    users = shoppers(40, seed=1)
    scorer = PlacePopularity(
        users,
        positive_types=(0,),
        num_places=PLACES,
        num_items=ITEMS,
        prior_users=PRIOR_USERS,
    )
    prior = counted(users)
    history = users[3]
    told = history.place[history.place >= 0]
    where = np.bincount(told, minlength=PLACES) / len(told)
    np.testing.assert_allclose(scorer.score([history])[0], where @ prior.vectors.numpy(), atol=1e-4)


def learner_of(users: list[History], *, with_places: bool):  # type: ignore[no-untyped-def]
    rows = np.zeros((len(users), ITEMS))
    for row, user in enumerate(users):
        rows[row, distinct_items(user, (0,))] = 1
    start = cooccurrence(sparse.csr_array(rows), dim=ITEMS)
    model = Factorization(start, regularisation=5.0, places=counted(users) if with_places else None)
    return presets.cavia(model, inner_lr=0.5, num_inner_steps=1)


def hit_rate(learner, users: list[History]) -> float:  # type: ignore[no-untyped-def]
    """Share of the first three recommended items that are bought later."""
    served, params = learner.served(learner.init(torch.Generator()))
    supports = [user.where(slice(0, 2)) for user in users]
    scores = served.score(params, served.adapt(params, rows_of(supports)))
    hits = []
    for row, (user, support) in enumerate(zip(users, supports, strict=True)):
        scores[row, torch.from_numpy(support.item)] = -torch.inf
        later = np.setdiff1d(user.item, support.item)
        hits.append(np.isin(scores[row].topk(3).indices.numpy(), later).mean())
    return float(np.mean(hits))


def test_branches_that_sell_different_things_are_told_apart() -> None:
    train, fresh = shoppers(200, seed=5), shoppers(200, seed=6)
    gain = [hit_rate(learner_of(train, with_places=placed), fresh) for placed in (False, True)]
    assert gain[1] > gain[0] + 0.05


def test_places_that_say_nothing_gain_nothing() -> None:
    train, fresh = shoppers(200, seed=5, told=False), shoppers(200, seed=6, told=False)
    gain = [hit_rate(learner_of(train, with_places=placed), fresh) for placed in (False, True)]
    assert gain[1] < gain[0] + 0.03


def test_training_a_user_who_is_left_out_does_not_see_what_only_it_bought() -> None:
    users = shoppers(30, seed=8)
    alone = replace(
        users[0], item=np.full(len(users[0]), ITEMS - 1), place=np.zeros_like(users[0].item)
    )
    others = [u.where(u.item < ITEMS - 1) for u in users[1:]]
    learner = learner_of([alone, *others], with_places=True)
    params = learner.init(torch.Generator())
    support = rows_of([users[1].where(slice(0, 2))])
    query = pad_items([np.array([ITEMS - 1])])
    own = with_own_items(support, [alone], (0,), VIEW)
    seen = learner.query_losses(params, TaskBatch(support, query))
    left_out = learner.query_losses(params, TaskBatch(own, query))
    assert left_out >= seen
