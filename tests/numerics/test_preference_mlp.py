"""MeLU's estimator in float64: finite differences, users' features, noise, scores."""

import numpy as np
import pytest
import torch

from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.models import preference_mlp
from raymeta.models.embeddings import FieldEmbedding
from raymeta.models.preference_mlp import (
    ItemFeatures,
    PreferenceMlp,
    hashed_noise,
)
from raymeta.types import Examples, Params, TaskBatch

NUM_ITEMS, WIDTH = 6, 2
ITEM_FIELDS, USER_FIELDS = (0, 1, 1), (0, 1)


def model(feedback: str = "implicit", *, fast_first: bool = False) -> PreferenceMlp:
    """Six items of two fields (the second with two slots), users of two fields."""
    generator = torch.Generator().manual_seed(1)
    index = torch.tensor([[0, 3, 4], [1, 3, 3], [2, 5, 3], [1, 4, 5], [0, 5, 3], [2, 4, 3]])
    weight = torch.tensor([1.0, 0.5, 0.5]).repeat(NUM_ITEMS, 1).double()
    baseline = torch.randn(NUM_ITEMS, generator=generator).double()
    implicit = feedback == "implicit"
    noise = hashed_noise(baseline, num_noise=4) if implicit else None
    return PreferenceMlp(
        ItemFeatures(index, weight, baseline, noise),
        item_embedding=FieldEmbedding(num_rows=6, field_of_slot=ITEM_FIELDS, width=WIDTH),
        user_embedding=FieldEmbedding(num_rows=5, field_of_slot=USER_FIELDS, width=WIDTH),
        hidden_width=3,
        fast_first_layer=fast_first,
        item_ids=True,
    )


def params_of(algorithm: GradientBased) -> Params:
    generator = torch.Generator().manual_seed(2)
    start = algorithm.init(generator)
    return {n: p + 0.3 * torch.randn(p.shape, generator=generator).to(p) for n, p in start.items()}


def rows(items: list[list[int]]) -> Examples:
    width = max(1, *map(len, items))
    item = torch.zeros(len(items), width, dtype=torch.long)
    mask = torch.zeros(len(items), width, dtype=torch.bool)
    for row, values in enumerate(items):
        item[row, : len(values)] = torch.tensor(values, dtype=torch.long)
        mask[row, : len(values)] = True
    return {"item": item, "mask": mask, "value": (1.0 + (item * 7 % 5)).double() * mask}


def support(items: list[list[int]]) -> Examples:
    users = torch.tensor([[0, 2], [1, 3], [0, 4]])[: len(items)]
    return {**rows(items), "user_index": users, "user_weight": torch.ones(users.shape).double()}


BATCH = TaskBatch(support([[0, 1], [2], []]), rows([[3, 4], [5], [1, 0]]))
CASES = [("implicit", False), ("implicit", True), ("ratings", False)]


def learner(preset, feedback: str, fast_first: bool) -> GradientBased:
    return preset(model(feedback, fast_first=fast_first), inner_lr=0.2, num_inner_steps=2)


@pytest.mark.parametrize(("feedback", "fast_first"), CASES)
@pytest.mark.parametrize("preset", [presets.maml, presets.anil, presets.meta_sgd])
def test_the_meta_gradient_is_that_of_finite_differences(preset, feedback, fast_first) -> None:
    algorithm = learner(preset, feedback, fast_first)
    params = params_of(algorithm)
    found = algorithm.meta_gradient(params, BATCH).gradients
    step = 1e-6  # the error of a central difference is O(step^2) + O(rounding / step)
    generator = np.random.default_rng(0)
    for name, value in params.items():
        # along a random direction: one pair of losses checks every element of a tensor
        direction = torch.from_numpy(generator.standard_normal(value.shape))
        losses = [
            float(
                algorithm.query_losses(
                    {**params, name: value + sign * step * direction}, BATCH
                ).sum()
            )
            for sign in (1, -1)
        ]
        numeric = (losses[0] - losses[1]) / (2 * step)
        slope = float((found[name] * direction).sum())
        assert slope == pytest.approx(numeric, rel=1e-5, abs=1e-7), name
    for name in ("item_embedding", "user_embedding", "item_own", "first_user", "first_item"):
        assert found[name].abs().sum() > 0, name


@pytest.mark.parametrize("preset", [presets.maml, presets.fomaml, presets.anil, presets.meta_sgd])
def test_a_batch_gives_each_user_what_it_gets_alone(preset) -> None:
    algorithm = learner(preset, "implicit", False)
    params = params_of(algorithm)
    together = algorithm.adapt(params, BATCH.support)
    scores = algorithm.score(params, together)
    for row in range(3):
        alone = algorithm.adapt(params, {n: t[row : row + 1] for n, t in BATCH.support.items()})
        for name, value in alone.items():
            torch.testing.assert_close(together[name][row], value[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scores[row], algorithm.score(params, alone)[0])


@pytest.mark.parametrize("feedback", ["implicit", "ratings"])
def test_before_training_the_score_is_the_baseline(feedback: str) -> None:
    algorithm = presets.maml(model(feedback), inner_lr=0.2, num_inner_steps=1)
    params = algorithm.init(torch.Generator().manual_seed(0))
    unknown = {n: t[2:] for n, t in BATCH.support.items()}
    scores = algorithm.score(params, algorithm.adapt(params, unknown))[0]
    torch.testing.assert_close(scores, algorithm.tables()["item_baseline"])


def test_users_who_differ_in_features_only_are_scored_apart_also_where_only_the_head_is_fast() -> (
    None
):
    algorithm = learner(presets.anil, "implicit", False)
    params = params_of(algorithm)
    same = {n: t[:2].clone() for n, t in BATCH.support.items()}
    for name in ("item", "mask", "value"):
        same[name][1] = same[name][0]
    scores = algorithm.score(params, algorithm.adapt(params, same))
    assert not torch.allclose(scores[0], scores[1])
    same["user_index"][1] = same["user_index"][0]
    scores = algorithm.score(params, algorithm.adapt(params, same))
    torch.testing.assert_close(scores[0], scores[1])


def test_a_bias_step_stands_in_for_the_users_columns() -> None:
    """The gradient in the columns that read user features is that of the bias, outer features."""
    chosen = model()
    algorithm = presets.maml(chosen, inner_lr=0.2, num_inner_steps=1)
    params = params_of(algorithm)
    one = {n: t[0] for n, t in BATCH.support.items()}
    user = chosen._embed_user(params["user_embedding"], one["user_index"], one["user_weight"])
    shared = chosen.shared(params)

    def loss(first_user: torch.Tensor, first_bias: torch.Tensor) -> torch.Tensor:
        bias = first_bias + user @ first_user
        return chosen.support_loss({**params, "first_bias": bias}, shared, one)

    slopes = torch.func.grad(loss, argnums=(0, 1))(params["first_user"], params["first_bias"])
    torch.testing.assert_close(slopes[0], user[:, None] * slopes[1])


def test_candidates_and_chunks_score_as_the_whole_catalogue(monkeypatch) -> None:
    for fast_first in (False, True):
        algorithm = learner(presets.maml, "implicit", fast_first)
        params = params_of(algorithm)
        state = algorithm.adapt(params, BATCH.support)
        scores = algorithm.score(params, state)
        candidates = torch.tensor([[4, 0], [1, 1], [5, 2]])
        found = algorithm.score(params, state, candidates)
        torch.testing.assert_close(found, scores.gather(1, candidates))
        monkeypatch.setattr(preference_mlp, "ITEMS_PER_CHUNK", 4)
        torch.testing.assert_close(algorithm.score(params, state), scores)


def test_a_rating_that_is_not_known_does_not_count() -> None:
    algorithm = learner(presets.maml, "ratings", False)
    params = params_of(algorithm)
    unrated = {n: t.clone() for n, t in BATCH.support.items()}
    unrated["value"][0, 1] = 0.0
    dropped = {n: t.clone() for n, t in BATCH.support.items()}
    dropped["mask"][0, 1] = False
    one, other = algorithm.adapt(params, unrated), algorithm.adapt(params, dropped)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_noise_is_as_frequent_as_popularity_in_every_row() -> None:
    popularity = torch.log(torch.arange(1.0, 101.0))
    noise = hashed_noise(popularity, num_noise=50)
    assert torch.equal(noise, hashed_noise(popularity, num_noise=50))
    counts = torch.stack([torch.bincount(row, minlength=100) for row in noise]).double()
    expected = 50 * popularity.double().softmax(0)
    assert float((counts - expected).abs().max()) < 1.0
    assert torch.allclose(counts.mean(0), expected, atol=0.05)


def test_noise_is_a_function_of_the_set_of_items() -> None:
    algorithm = learner(presets.maml, "implicit", False)
    params = params_of(algorithm)
    one = algorithm.adapt(params, support([[0, 1]]))
    other = algorithm.adapt(params, support([[1, 0]]))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])
