"""Users' rows in SQL: found, locked, and turned into events and back.

Statements are written with `?` for a value. Leaves what is changed to `sql_changes`, and what is
asked to `sql_reads`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raymeta.serve.user_events.base import Retention, StoredEvent, UserVersion

NEVER_MS = -1
"""Before any timestamp that an event may have."""


class Session(Protocol):
    """A connection within a transaction."""

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of the result."""
        ...

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """How many rows were changed."""
        ...

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """The statement for each row of values."""
        ...


OF_A_USER = ("events", "seen_items", "rankings", "answers")
"""Tables that an erasure empties; ids stay taken."""

EVENT_COLUMNS = (
    "event_id, item_id, event_type, timestamp_ms, value, visit_id, query, ranking_id, position, "
    "propensity, timestamp_given, place"
)
ORDER_DOWN = "timestamp_ms DESC, item_id DESC, event_type DESC, sequence DESC"


@dataclass(frozen=True, slots=True)
class UserRow:
    key: int
    epoch_ms: int
    touched_ms: int
    number: int
    num_events: int
    arrivals: int
    generation: int
    erased_ms: int
    features: str


USER_COLUMNS = (
    "user_key, epoch_ms, touched_ms, state_version, num_events, arrivals, generation, erased_ms, "
    "features"
)


def find(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserRow | None:
    rows = session.all(
        f"SELECT {USER_COLUMNS} FROM users WHERE tenant = ? AND user_id = ?", (tenant, user_id)
    )
    user = UserRow(*rows[0]) if rows else None
    return None if user is None or is_forgotten(user, retention, now_ms) else user


def catalogue_version(session: Session, tenant: str) -> int:
    rows = session.all("SELECT version FROM catalogues WHERE tenant = ?", (tenant,))
    return int(rows[0][0]) if rows else 0


def version_of(session: Session, tenant: str, user: UserRow | None) -> UserVersion:
    catalogue = catalogue_version(session, tenant)
    if user is None:
        return UserVersion(catalogue=catalogue)
    return UserVersion(user.number, user.epoch_ms, catalogue)


def locked(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserRow:
    """The user's row, made where missing, held against others until the transaction ends."""
    (row,) = session.all(
        "INSERT INTO users (tenant, user_id, epoch_ms, touched_ms) VALUES (?, ?, ?, ?) "
        # changes nothing; but it locks the row, and returns it as it is
        "ON CONFLICT (tenant, user_id) DO UPDATE SET generation = users.generation "
        f"RETURNING {USER_COLUMNS}",
        (tenant, user_id, now_ms, now_ms),
    )
    user = UserRow(*row)
    if not is_forgotten(user, retention, now_ms):
        return user
    clear(session, user.key)
    session.run("DELETE FROM taken_ids WHERE user_key = ?", (user.key,))
    session.run(
        "UPDATE users SET epoch_ms = ?, touched_ms = ?, state_version = 0, num_events = 0, "
        "arrivals = 0, generation = 0, erased_ms = -1, features = '{}' WHERE user_key = ?",
        (now_ms, now_ms, user.key),
    )
    return UserRow(user.key, now_ms, now_ms, 0, 0, 0, 0, NEVER_MS, "{}")


def is_forgotten(user: UserRow, retention: Retention, now_ms: int) -> bool:
    return retention.user_ttl_ms is not None and user.touched_ms < now_ms - retention.user_ttl_ms


def clear(session: Session, key: int) -> None:
    for table in OF_A_USER:
        session.run(f"DELETE FROM {table} WHERE user_key = ?", (key,))


def event_values(event: StoredEvent) -> tuple[Any, ...]:
    return (
        event.event_id,
        event.item_id or "",
        event.event_type,
        event.timestamp_ms,
        event.value,
        event.visit_id,
        event.query,
        event.ranking_id,
        event.position,
        event.propensity,
        int(event.timestamp_given),
        event.place,
    )


def event_of(row: tuple[Any, ...]) -> StoredEvent:
    values = [row[0], row[1] or None, *row[2:-2], bool(row[-2]), row[-1]]
    return StoredEvent(*values)
