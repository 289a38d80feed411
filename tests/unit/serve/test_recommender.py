"""Adapting and ranking: batched users get what they would get alone."""

import asyncio
from typing import Any

import pytest
import torch

from raymeta.errors import AdaptationError
from raymeta.serve.models import Maker
from raymeta.serve.policy import Wish
from raymeta.serve.recommender import Query, Ranking, Recommender
from raymeta.serve.user_events.base import StoredEvent, UserRecord, UserVersion
from tests.unit.serve.conftest import SmallArtifact


def record(*items: str, event_type: str = "purchase") -> UserRecord:
    events = tuple(StoredEvent(str(n), item, event_type, n) for n, item in enumerate(items))
    return UserRecord(UserVersion(len(items)), len(items), events, frozenset(items))


def rank_all(recommender: Recommender, users: list[UserRecord], **options: Any) -> list[Ranking]:
    async def gather() -> list[Ranking]:
        query = Query(Wish(n=3), **options)
        return await asyncio.gather(*(recommender.rank(user, query) for user in users))

    return asyncio.run(gather())


def test_concurrent_users_are_adapted_together_and_as_if_alone(
    recommender: Recommender, artifact: SmallArtifact
) -> None:
    users = [record("item1"), record("item2", "item2", "item4"), record(), record("item5")]
    artifact.algorithm.batches.clear()
    together = rank_all(recommender, users)
    assert artifact.algorithm.batches == [4]
    alone = [rank_all(recommender, [user])[0] for user in users]
    assert [r.items for r in together] == [r.items for r in alone]
    assert [r.user.num_support for r in together] == [1, 3, 0, 1]


def test_requests_gather_while_a_batch_runs(
    recommender: Recommender, artifact: SmallArtifact
) -> None:
    artifact.algorithm.batches.clear()
    rank_all(recommender, [record("item1")] * 40)
    assert artifact.algorithm.batches == [16, 16, 8]


def test_scores_are_those_of_the_algorithm(
    recommender: Recommender, artifact: SmallArtifact
) -> None:
    (ranking,) = rank_all(recommender, [record("item2", "item4")], exclude_seen=False)
    expected = artifact.meta_params["prior"].clone()
    expected[3] += 1
    expected[5] += 1
    scores, indices = torch.topk(expected, 3)
    assert [item.item_id for item in ranking.items] == [f"item{i}" for i in indices.tolist()]
    assert [item.score for item in ranking.items] == scores.tolist()


def test_types_that_do_not_count_do_not_adapt(recommender: Recommender) -> None:
    users = [record("item2", event_type="wish"), record("item2", event_type="view")]
    assert [r.user.num_support for r in rank_all(recommender, users)] == [0, 0]


def test_a_cached_user_is_not_adapted_again(
    recommender: Recommender, artifact: SmallArtifact
) -> None:
    (first,) = rank_all(recommender, [record("item2")])
    artifact.algorithm.batches.clear()
    again = asyncio.run(recommender.rank(first.user, Query(Wish(n=3))))
    assert again.items == first.items
    assert artifact.algorithm.batches == []


def test_a_user_who_cannot_be_adapted_gets_the_prior_and_harms_no_other(
    recommender: Recommender,
) -> None:
    users = [record("item2"), record("item6"), record("item7"), record("item4")]
    fine, poisoned, nan, other = rank_all(recommender, users, exclude_seen=False)
    prior = ["item0", "item1", "item2"]
    assert [item.item_id for item in poisoned.items] == prior
    assert [item.item_id for item in nan.items] == prior
    assert (poisoned.user.adapted, nan.user.adapted) == (False, False)
    assert fine.items[0].item_id == "item3"
    assert other.items[0].item_id == "item5"


def test_more_than_the_catalogue_holds_is_what_is_left(recommender: Recommender) -> None:
    everything = record(*(f"item{n}" for n in range(6)))
    query = Query(Wish(n=100), exclude=["item6"])
    ranking = asyncio.run(recommender.rank(everything, query))
    assert [item.item_id for item in ranking.items] == ["item7"]


def test_an_artifact_without_finite_scores_is_refused(
    artifact: SmallArtifact, maker: Maker
) -> None:
    artifact.meta_params["prior"][2] = torch.nan
    with pytest.raises(AdaptationError, match="not finite"):
        maker.recommender(artifact, {}, version=0)  # type: ignore[arg-type]
