"""From a request to what is asked of a recommender, and from its items to those of an answer."""

from collections.abc import Sequence

from raymeta.errors import DataError
from raymeta.serve.item_table import Condition, ItemFilter
from raymeta.serve.policy import Wish
from raymeta.serve.recommender import Query, RankedItem, Recommender
from raymeta.serve.schemas.recommend import (
    Filter,
    Pin,
    Range,
    Reason,
    RecommendRequest,
    ScoredItem,
    SessionRequest,
)


def recommend_query(
    request: RecommendRequest | SessionRequest,
    recommender: Recommender,
    *,
    temperature: float | None = None,
) -> Query:
    """What a request asks of a recommender.

    Raises:
        DataError: an item is pinned that the model does not know.
    """
    return Query(
        wish=Wish(
            n=request.n,
            pins=_pins(request.pins, recommender),
            diversity=request.diversity,
            temperature=temperature,
        ),
        exclude=request.exclude,
        exclude_seen=request.exclude_seen,
        exclude_bought=request.exclude_bought,
        filter=_conditions(request.filter),
        explain=request.explain,
    )


def _pins(pins: Sequence[Pin], recommender: Recommender) -> tuple[tuple[int, int], ...]:
    index_of = recommender.artifact.catalogue.index_of
    for number, pin in enumerate(pins):
        if pin.item_id not in index_of:
            raise DataError(
                f"pins.{number}.item_id is {pin.item_id!r}, which the model does not know.",
                remedy="Pin an item of the catalogue, or add it with PUT /v1/items/ID.",
            )
    return tuple((pin.position, index_of[pin.item_id]) for pin in pins)


def _conditions(wanted: Filter) -> ItemFilter:
    conditions = []
    for feature, value in sorted(wanted.items()):
        if isinstance(value, Range):
            conditions.append(Condition(feature, at_least=value.min, at_most=value.max))
        else:
            values = value if isinstance(value, list) else [value]
            conditions.append(Condition(feature, any_of=tuple(values)))
    return tuple(conditions)


def scored_item(item: RankedItem) -> ScoredItem:
    """A place of a list as an answer has it."""
    return ScoredItem(
        id=item.item_id,
        score=item.score,
        prior_score=item.prior_score,
        probabilities=None if item.probabilities is None else dict(item.probabilities),
        propensity=item.propensity,
        pinned=True if item.pinned else None,
        reasons=None
        if item.reasons is None
        else [
            Reason(item_id=r.item_id, event_type=r.event_type, effect=r.effect)
            for r in item.reasons
        ],
    )
