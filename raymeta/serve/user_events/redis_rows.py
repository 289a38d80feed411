"""What goes to the scripts of `redis_scripts` and what comes back, as events and records."""

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from raymeta.serve.user_events.base import (
    AppendResult,
    IdempotencyKey,
    StoredEvent,
    UserRecord,
    UserVersion,
    id_digest,
)
from raymeta.serve.user_events.conflicts import event_conflict, key_conflict


def append_values(event: StoredEvent) -> tuple[bytes | str | int, ...]:
    """An event as the script `append` takes it."""
    return (
        id_digest(event.event_id),
        event.body_digest(),
        event.timestamp_ms,
        event.item_id if event.marks_seen() and event.item_id is not None else "",
        # item id, type and sequence before it order the set; ids hold no NUL
        f"{event.item_id or ''}\0{event.event_type}\0",
        json.dumps(astuple(event)),
    )


def appended(
    answer: Sequence[int], events: Sequence[StoredEvent], key: IdempotencyKey | None
) -> AppendResult:
    """What the script `append` answered.

    Raises:
        ConflictError: an event id or the key was used before with another content.
    """
    if answer[0] == -1:
        raise event_conflict(events[answer[1] - 1].event_id)
    if answer[0] == -2:
        raise key_conflict(key.key if key is not None else "")
    number, accepted, duplicates, erased, replayed = answer
    return AppendResult(number, accepted, duplicates, erased, bool(replayed))


def record_of(answer: Sequence[Any]) -> UserRecord:
    """What the script `read` answered."""
    number, epoch_ms, catalogue, num_events, generation, features, events, seen = answer
    return UserRecord(
        version=UserVersion(number, int(epoch_ms), int(catalogue)),
        num_events=num_events,
        events=tuple(_event(member) for member in events),
        seen_items=frozenset(item.decode() for item in seen),
        features=json.loads(features),
        generation=generation,
    )


def _event(member: bytes) -> StoredEvent:
    return StoredEvent(*json.loads(member.split(b"\0", 3)[3]))
