"""What is asked of an event store in SQL; each within a transaction that sees one moment."""

import json

from raymeta.serve.user_events.base import (
    ItemChange,
    LoggedRanking,
    Retention,
    UserRecord,
    UserVersion,
)
from raymeta.serve.user_events.sql_rows import (
    EVENT_COLUMNS,
    NEVER_MS,
    ORDER_DOWN,
    Session,
    event_of,
    find,
    version_of,
)


def read(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserRecord:
    """As `EventStore.read`; the transaction must see one moment."""
    user = find(session, tenant, user_id, retention=retention, now_ms=now_ms)
    version = version_of(session, tenant, user)
    if user is None:
        return UserRecord(version)
    events = session.all(
        f"SELECT {EVENT_COLUMNS} FROM events WHERE user_key = ? ORDER BY {ORDER_DOWN} LIMIT ?",
        (user.key, retention.events),
    )
    seen = session.all("SELECT item_id FROM seen_items WHERE user_key = ?", (user.key,))
    return UserRecord(
        version=version,
        num_events=user.num_events,
        events=tuple(event_of(row) for row in reversed(events)),
        seen_items=frozenset(item for (item,) in seen),
        features=json.loads(user.features),
        generation=user.generation,
    )


def version(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserVersion:
    """As `EventStore.version`."""
    user = find(session, tenant, user_id, retention=retention, now_ms=now_ms)
    return version_of(session, tenant, user)


def rankings(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> tuple[LoggedRanking, ...]:
    """As `EventStore.rankings`."""
    user = find(session, tenant, user_id, retention=retention, now_ms=now_ms)
    rows = session.all(
        "SELECT ranking_id, timestamp_ms, model_version, slots FROM rankings "
        "WHERE user_key = ? ORDER BY timestamp_ms, ranking_id",
        (-1 if user is None else user.key,),
    )
    return tuple(
        LoggedRanking(ranking_id, at, model, tuple((item, p) for item, p in json.loads(slots)))
        for ranking_id, at, model, slots in rows
    )


def user_ids(
    session: Session, tenant: str, *, after: str, limit: int, retention: Retention, now_ms: int
) -> list[str]:
    """As `EventStore.user_ids`."""
    forgotten = NEVER_MS if retention.user_ttl_ms is None else now_ms - retention.user_ttl_ms
    rows = session.all(
        "SELECT user_id FROM users WHERE tenant = ? AND user_id > ? AND touched_ms >= ? "
        "AND (num_events > 0 OR features <> '{}') ORDER BY user_id LIMIT ?",
        (tenant, after, forgotten, limit),
    )
    return [user_id for (user_id,) in rows]


def item_changes(session: Session, tenant: str, *, after: int) -> list[ItemChange]:
    """As `EventStore.item_changes`."""
    rows = session.all(
        "SELECT item_id, features, available, deleted, version FROM items "
        "WHERE tenant = ? AND version > ? ORDER BY version, item_id",
        (tenant, after),
    )
    return [
        ItemChange(item_id, json.loads(features), bool(available), bool(deleted), number)
        for item_id, features, available, deleted, number in rows
    ]
