"""Events in the memory of one process: for trials, tests, and as the plain statement of a store."""

import threading
from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from raymeta.serve.user_events.base import AppendResult, StoredEvent, UserRecord


@dataclass
class _User:
    version: int = 0
    num_events: int = 0
    events: list[tuple[int, str, str, int, StoredEvent]] = field(default_factory=list)
    event_ids: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)


class MemoryEventStore:
    """An `EventStore` without a disk; what it holds ends with the process.

    Args:
        retained_events: how many events are kept a user, at least 1.
    """

    def __init__(self, *, retained_events: int) -> None:
        self._retained_events = retained_events
        self._users: defaultdict[tuple[str, str], _User] = defaultdict(_User)
        self._lock = threading.Lock()

    async def append(
        self, tenant: str, user_id: str, events: Sequence[StoredEvent]
    ) -> AppendResult:
        with self._lock:
            if not events:
                return AppendResult(self._version(tenant, user_id), 0, 0)
            user = self._users[tenant, user_id]
            before = user.num_events
            for event in events:
                if event.event_id in user.event_ids:
                    continue
                user.event_ids.add(event.event_id)
                if event.marks_seen():
                    user.seen.add(event.item_id)
                user.num_events += 1
                order = (event.timestamp_ms, event.item_id, event.event_type, user.num_events)
                insort(user.events, (*order, event))
            del user.events[: -self._retained_events]
            accepted = user.num_events - before
            user.version += accepted > 0
            return AppendResult(user.version, accepted, len(events) - accepted)

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        with self._lock:
            user = self._users.get((tenant, user_id))
            if user is None:
                return UserRecord()
            events = tuple(row[-1] for row in user.events)
            return UserRecord(user.version, user.num_events, events, frozenset(user.seen))

    async def version(self, tenant: str, user_id: str) -> int:
        with self._lock:
            return self._version(tenant, user_id)

    async def check(self) -> None:
        return None

    def close(self) -> None:
        return None

    def _version(self, tenant: str, user_id: str) -> int:
        user = self._users.get((tenant, user_id))
        return user.version if user is not None else 0
