"""Changes of an event store in SQL, one user at a time; each within a transaction of its caller.

Leaves connections, threads and commits to `engine`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymeta.serve.user_events.base import (
    MAX_RANKINGS,
    AppendResult,
    Erasure,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    Retention,
    StoredEvent,
    UserRecord,
    UserVersion,
    id_digest,
)
from raymeta.serve.user_events.conflicts import event_conflict, key_conflict
from raymeta.serve.user_events.record_cache import RecordCache, with_events
from raymeta.serve.user_events.sql_reads import read
from raymeta.serve.user_events.sql_rows import (
    EVENT_COLUMNS,
    NEVER_MS,
    ORDER_DOWN,
    Session,
    UserRow,
    catalogue_version,
    clear,
    event_values,
    locked,
)


@dataclass(frozen=True, slots=True)
class Append:
    """One call of `EventStore.append`."""

    tenant: str
    user_id: str
    events: Sequence[StoredEvent]
    received_ms: int
    key: IdempotencyKey | None = None


def append(session: Session, request: Append, *, retention: Retention, now_ms: int) -> AppendResult:
    """Adds events to a user; locks the user's row first, so that one append follows another."""
    return _append(session, request, retention=retention, now_ms=now_ms)[0]


def append_and_read(
    session: Session, request: Append, records: RecordCache, *, retention: Retention, now_ms: int
) -> tuple[AppendResult, UserRecord]:
    """`append`, and the user as it stands then: the record before out of `records`, where it is
    there, and the new events."""
    tenant, user_id = request.tenant, request.user_id
    result, user, fresh = _append(session, request, retention=retention, now_ms=now_ms)
    before = UserVersion(user.number, user.epoch_ms)
    record = records.get((tenant, user_id), before)
    if user.number == 0:
        record = UserRecord(before)  # nothing was ever stored
    if record is None or result.replayed:
        return result, read(session, tenant, user_id, retention=retention, now_ms=now_ms)
    catalogue = catalogue_version(session, tenant)
    after = UserVersion(result.state_version, user.epoch_ms, catalogue)
    return result, with_events(record, fresh, after, retained=retention.events)


def _append(
    session: Session, request: Append, *, retention: Retention, now_ms: int
) -> tuple[AppendResult, UserRow, Sequence[StoredEvent]]:
    """What became of the events, the user's row before, and what was new."""
    user = locked(session, request.tenant, request.user_id, retention=retention, now_ms=now_ms)
    key = request.key
    if key is not None:
        oldest = now_ms - retention.idempotency_ttl_ms
        if stored := _answered(session, request.tenant, user, key, oldest_ms=oldest):
            return stored, user, ()
    fresh, duplicates, erased = _sort_out(session, user, request)
    _insert(session, user, fresh, now_ms=now_ms)
    number = user.number + bool(fresh)
    session.run(
        "UPDATE users SET state_version = ?, num_events = ?, arrivals = ?, touched_ms = ? "
        "WHERE user_key = ?",
        (
            number,
            user.num_events + len(fresh),
            user.arrivals + len(fresh),
            now_ms,
            user.key,
        ),
    )
    if user.num_events + len(fresh) > retention.events:
        _prune(session, user.key, retention.events)
    result = AppendResult(number, len(fresh), duplicates, erased)
    if key is not None:
        _keep_answer(session, request.tenant, user, key, result, now_ms=now_ms)
    return result, user, tuple(fresh.values())


def put_features(
    session: Session,
    tenant: str,
    user_id: str,
    features: Mapping[str, Any],
    *,
    replace: bool,
    retention: Retention,
    now_ms: int,
) -> int:
    """As `EventStore.put_features`."""
    user = locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
    merged = {**({} if replace else json.loads(user.features)), **features}
    kept = {name: value for name, value in merged.items() if value is not None}
    session.run(
        "UPDATE users SET features = ?, state_version = ?, touched_ms = ? WHERE user_key = ?",
        (json.dumps(kept), user.number + 1, now_ms, user.key),
    )
    return user.number + 1


def log_ranking(
    session: Session,
    tenant: str,
    user_id: str,
    ranking: LoggedRanking,
    *,
    retention: Retention,
    now_ms: int,
) -> None:
    """As `EventStore.log_ranking`."""
    user = locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
    session.run(
        "INSERT INTO rankings (user_key, timestamp_ms, ranking_id, model_version, slots) "
        "VALUES (?, ?, ?, ?, ?)",
        (
            user.key,
            ranking.timestamp_ms,
            ranking.ranking_id,
            ranking.model_version,
            json.dumps(ranking.slots),
        ),
    )
    session.run(
        "DELETE FROM rankings WHERE user_key = ? AND (timestamp_ms, ranking_id) IN "
        "(SELECT timestamp_ms, ranking_id FROM rankings WHERE user_key = ? "
        f"ORDER BY timestamp_ms DESC, ranking_id DESC LIMIT 1000000 OFFSET {MAX_RANKINGS})",
        (user.key, user.key),
    )


def erase(
    session: Session, tenant: str, user_id: str, *, at_ms: int, retention: Retention, now_ms: int
) -> Erasure:
    """As `EventStore.erase`."""
    user = locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
    if at_ms <= user.erased_ms:
        return Erasure(user.generation, user.number, 0)
    clear(session, user.key)
    session.run(
        "UPDATE users SET state_version = ?, num_events = 0, generation = ?, erased_ms = ?, "
        "features = '{}', touched_ms = ? WHERE user_key = ?",
        (user.number + 1, user.generation + 1, at_ms, now_ms, user.key),
    )
    return Erasure(user.generation + 1, user.number + 1, user.num_events)


def put_items(session: Session, tenant: str, items: Sequence[ItemChange]) -> int:
    """As `EventStore.put_items`."""
    ((version,),) = session.all(
        "INSERT INTO catalogues (tenant, version) VALUES (?, 1) ON CONFLICT (tenant) "
        "DO UPDATE SET version = catalogues.version + 1 RETURNING version",
        (tenant,),
    )
    session.run_many(
        "INSERT INTO items (tenant, item_id, version, available, deleted, features) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, item_id) DO UPDATE SET "
        "version = excluded.version, available = excluded.available, "
        "deleted = excluded.deleted, features = excluded.features",
        [
            (
                tenant,
                item.item_id,
                version,
                int(item.available),
                int(item.deleted),
                json.dumps(dict(item.features)),
            )
            for item in items
        ],
    )
    return int(version)


def sweep(session: Session, *, retention: Retention, now_ms: int) -> int:
    """As `EventStore.sweep`, at most 1,000 users a call, so that writers wait for moments."""
    gone = session.run(
        "DELETE FROM answers WHERE at_ms < ?", (now_ms - retention.idempotency_ttl_ms,)
    )
    oldest_id = now_ms - retention.event_id_ttl_ms
    gone += session.run("DELETE FROM taken_ids WHERE at_ms < ?", (oldest_id,))
    forgotten = NEVER_MS if retention.user_ttl_ms is None else now_ms - retention.user_ttl_ms
    keys = session.all(
        "SELECT user_key FROM users WHERE touched_ms < ? OR (touched_ms < ? AND num_events = 0 "
        "AND features = '{}' AND NOT EXISTS "
        "(SELECT 1 FROM rankings WHERE rankings.user_key = users.user_key)) LIMIT 1000",
        (forgotten, oldest_id),
    )
    for (key,) in keys:
        clear(session, key)
        session.run("DELETE FROM taken_ids WHERE user_key = ?", (key,))
        gone += session.run("DELETE FROM users WHERE user_key = ?", (key,))
    return gone


# --- parts


def _sort_out(
    session: Session, user: UserRow, request: Append
) -> tuple[dict[bytes, StoredEvent], int, int]:
    """The events that are new, by the digest of their id; how many are repeats; how many are of
    before the user's erasure."""
    identities = [id_digest(event.event_id) for event in request.events]
    taken = dict(_taken(session, user.key, identities))
    fresh: dict[bytes, StoredEvent] = {}
    duplicates = erased = 0
    for identity, event in zip(identities, request.events, strict=True):
        if identity in taken:
            known = taken[identity]
            # what an older schema stored has no digest
            if known is not None and bytes(known) != event.body_digest():
                raise event_conflict(event.event_id)
            duplicates += 1
        elif min(event.timestamp_ms, request.received_ms) <= user.erased_ms:
            erased += 1
        else:
            fresh[identity] = event
            taken[identity] = event.body_digest()
    return fresh, duplicates, erased


def _taken(
    session: Session, key: int, identities: Sequence[bytes]
) -> Iterable[tuple[bytes, bytes | None]]:
    at_a_time = 500  # a statement has a bounded number of values
    for start in range(0, len(identities), at_a_time):
        chunk = identities[start : start + at_a_time]
        marks = ", ".join("?" * len(chunk))
        rows = session.all(
            f"SELECT id_digest, body_digest FROM taken_ids WHERE user_key = ? "
            f"AND id_digest IN ({marks})",
            (key, *chunk),
        )
        yield from ((bytes(identity), body) for identity, body in rows)


def _insert(
    session: Session, user: UserRow, fresh: Mapping[bytes, StoredEvent], *, now_ms: int
) -> None:
    if not fresh:
        return
    session.run_many(
        "INSERT INTO taken_ids (user_key, id_digest, body_digest, at_ms) VALUES (?, ?, ?, ?)",
        [(user.key, identity, event.body_digest(), now_ms) for identity, event in fresh.items()],
    )
    session.run_many(
        f"INSERT INTO events (user_key, sequence, {EVENT_COLUMNS}) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (user.key, number, *event_values(event))
            for number, event in enumerate(fresh.values(), start=user.arrivals + 1)
        ],
    )
    seen = sorted({event.item_id or "" for event in fresh.values() if event.marks_seen()})
    if seen:
        session.run_many(
            "INSERT INTO seen_items (user_key, item_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(user.key, item_id) for item_id in seen],
        )


def _prune(session: Session, key: int, kept: int) -> None:
    """Deletes all but the last events; the first that goes is found by the primary key's order."""
    columns = "timestamp_ms, item_id, event_type, sequence"
    rows = session.all(
        f"SELECT {columns} FROM events WHERE user_key = ? ORDER BY {ORDER_DOWN} LIMIT 1 OFFSET ?",
        (key, kept),
    )
    if rows:
        session.run(
            f"DELETE FROM events WHERE user_key = ? AND ({columns}) <= (?, ?, ?, ?)",
            (key, *rows[0]),
        )


def _answered(
    session: Session, tenant: str, user: UserRow, key: IdempotencyKey, *, oldest_ms: int
) -> AppendResult | None:
    session.run(
        "DELETE FROM answers WHERE tenant = ? AND idempotency_key = ? AND at_ms < ?",
        (tenant, key.key, oldest_ms),
    )
    rows = session.all(
        "SELECT user_key, body_digest, result FROM answers WHERE tenant = ? "
        "AND idempotency_key = ?",
        (tenant, key.key),
    )
    if not rows:
        return None
    owner, body, result = rows[0]
    if (owner, bytes(body)) != (user.key, key.body_digest):
        raise key_conflict(key.key)
    number, accepted, duplicates, erased = json.loads(result)
    return AppendResult(number, accepted, duplicates, erased, replayed=True)


def _keep_answer(
    session: Session,
    tenant: str,
    user: UserRow,
    key: IdempotencyKey,
    result: AppendResult,
    *,
    now_ms: int,
) -> None:
    kept = [result.state_version, result.accepted, result.duplicates, result.erased]
    changed = session.run(
        "INSERT INTO answers (tenant, idempotency_key, user_key, body_digest, at_ms, result) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (tenant, key.key, user.key, key.body_digest, now_ms, json.dumps(kept)),
    )
    if not changed:  # another user's request with this key was committed a moment ago
        raise key_conflict(key.key)
