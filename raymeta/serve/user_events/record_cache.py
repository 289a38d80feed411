"""Records of users in the memory of one process, so that an append need not read them all again.

A version names one set of events and features, so a record that is here is right as long as the
store still has its version: whoever asks has read that, within its transaction. Leaves that to its
caller. A cache: losing it loses nothing.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence

from raymeta.serve.user_events.base import StoredEvent, UserRecord, UserVersion

MAX_VALUES = 100_000
"""Events and seen items that are held: some 30 MB."""

MAX_AGE_MS = 3_600_000
"""A record leaves after an hour: so long a process may hold what was erased by another."""

_Name = tuple[str, str]


class RecordCache:
    """Records by (tenant, user), least recently used out first; used by one thread at a time.

    Args:
        max_values: events and seen items that it holds at most.
    """

    def __init__(self, *, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._entries: OrderedDict[_Name, tuple[UserRecord, int]] = OrderedDict()
        self._of_transaction: dict[_Name, UserRecord] = {}
        self._num_values = 0

    def get(self, name: _Name, version: UserVersion) -> UserRecord | None:
        """The user's record of that version, whatever the catalogue's."""
        just_made = self._of_transaction.get(name)
        if just_made is not None and just_made.version[:2] == version[:2]:
            return just_made
        entry = self._entries.get(name)
        if entry is None or entry[0].version[:2] != version[:2]:
            return None
        self._entries.move_to_end(name)
        return entry[0]

    def begin(self) -> None:
        """A transaction begins: what the one before made is durable, and was put, or never was."""
        self._of_transaction.clear()

    def note(self, name: _Name, record: UserRecord) -> None:
        """Takes a record for the rest of the transaction: a group commit has many of one user."""
        self._of_transaction[name] = record

    def put(self, name: _Name, record: UserRecord, *, now_ms: int) -> None:
        """Takes a record that is durable."""
        self.drop(name)
        self._entries[name] = (record, now_ms)
        self._num_values += _num_values(record)
        while self._num_values > self._max_values:
            self.drop(next(iter(self._entries)))

    def drop(self, name: _Name) -> None:
        """Forgets a user."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._num_values -= _num_values(entry[0])

    def drop_old(self, now_ms: int) -> None:
        """Forgets what has outlived its age."""
        old = [n for n, (_, since_ms) in self._entries.items() if since_ms < now_ms - MAX_AGE_MS]
        for name in old:
            self.drop(name)


def with_events(
    record: UserRecord, fresh: Sequence[StoredEvent], version: UserVersion, *, retained: int
) -> UserRecord:
    """The record after an append.

    Args:
        record: as it was before.
        fresh: what was new, in the order of its arrival.
        version: after the append.
        retained: events that are kept.
    """
    events = list(record.events)
    for event in fresh:
        insort(events, event, key=StoredEvent.order)  # after its equals, which arrived before
    seen = {e.item_id for e in fresh if e.marks_seen() and e.item_id is not None}
    return UserRecord(
        version=version,
        num_events=record.num_events + len(fresh),
        events=tuple(events[-retained:]),
        seen_items=record.seen_items | seen,
        features=record.features,
        generation=record.generation,
    )


def _num_values(record: UserRecord) -> int:
    return 1 + len(record.events) + len(record.seen_items)
