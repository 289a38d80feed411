"""What moved an item: its score with all of the user's events, less that with some left out.

A group is the events on one item of one type: `adapt` sees them as one row. Leaves scoring to its
caller.

Shapes: G groups of events, C items of a list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raymeta.serve.user_events.base import StoredEvent, UserRecord

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

MAX_EXPLAINED = 32
"""Groups of events whose effect is measured: the latest; each costs an adaptation."""

MAX_REASONS = 3
"""Reasons given an item."""

Group = tuple[str | None, str]
"""Item id and event type."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What the user's events on one item, of one type, did to a score."""

    item_id: str
    event_type: str
    effect: float


def effects(
    record: UserRecord,
    groups: Sequence[Group],
    scores_of: Callable[[Sequence[UserRecord]], list[list[float]]],
) -> list[tuple[Effect, ...]]:
    """For each item of a list, the scores that go with each group of events, largest first.

    Args:
        record: the user.
        groups: what is left out in turn (leave one out).
        scores_of: users -> the scores of the list's items for each of them, `[1 + G, C]`.
    """
    without = [
        replace(record, events=tuple(e for e in record.events if _group(e) != group))
        for group in groups
    ]
    full_C, *without_GC = scores_of([record, *without])
    explained = []
    for column, full in enumerate(full_C):
        found = [
            Effect(group[0] or "", group[1], full - scores[column])
            for group, scores in zip(groups, without_GC, strict=True)
        ]
        found.sort(key=lambda effect: -abs(effect.effect))
        explained.append(tuple(found[:MAX_REASONS]))
    return explained


def groups_of(record: UserRecord, artifact: "Artifact") -> list[Group]:
    """The groups of events that `adapt` sees, the latest first."""
    counted = {artifact.event_types[index] for index in artifact.view.event_types}
    known = artifact.catalogue.index_of
    groups = [
        _group(event)
        for event in reversed(record.events)
        if event.event_type in counted and event.item_id in known
    ]
    return list(dict.fromkeys(groups))[:MAX_EXPLAINED]


def _group(event: StoredEvent) -> Group:
    return event.item_id, event.event_type
