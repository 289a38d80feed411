"""The event store in SQL: the statements that SQLite and PostgreSQL share, one user at a time.

Each function runs within a transaction of its caller. Statements are written with `?` for a value
and with the types of `Dialect`. Leaves connections, threads and commits to `engine`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Dialect:
    """How a database writes the types of the schema."""

    key: str
    integer: str
    real: str
    text: str
    blob: str
    strict: str = ""
    without_rowid: str = ""


def schema(dialect: Dialect) -> list[str]:
    """The statements that make an empty store of `base.SCHEMA_VERSION`."""
    words = {
        "KEY": dialect.key,
        "INT": dialect.integer,
        "REAL": dialect.real,
        "TEXT": dialect.text,
        "BLOB": dialect.blob,
        "ROWS": dialect.strict,
        "CLUSTERED": dialect.without_rowid,
    }
    filled = _SCHEMA
    for name, value in words.items():
        filled = filled.replace(f"<{name}>", value)
    return [statement for statement in filled.split(";") if statement.strip()]


_SCHEMA = """
CREATE TABLE users (
    user_key <KEY>,
    tenant <TEXT> NOT NULL,
    user_id <TEXT> NOT NULL,
    epoch_ms <INT> NOT NULL,
    touched_ms <INT> NOT NULL,
    state_version <INT> NOT NULL DEFAULT 0,
    num_events <INT> NOT NULL DEFAULT 0,
    arrivals <INT> NOT NULL DEFAULT 0,
    generation <INT> NOT NULL DEFAULT 0,
    erased_ms <INT> NOT NULL DEFAULT -1,
    features <TEXT> NOT NULL DEFAULT '{}',
    UNIQUE (tenant, user_id)
)<ROWS>;
CREATE INDEX users_by_touch ON users (touched_ms);
CREATE TABLE events (
    user_key <INT> NOT NULL,
    sequence <INT> NOT NULL,
    event_id <TEXT> NOT NULL,
    item_id <TEXT> NOT NULL,
    event_type <TEXT> NOT NULL,
    timestamp_ms <INT> NOT NULL,
    value <REAL>,
    visit_id <TEXT>,
    query <TEXT>,
    ranking_id <TEXT>,
    position <INT>,
    propensity <REAL>,
    timestamp_given <INT> NOT NULL,
    PRIMARY KEY (user_key, timestamp_ms, item_id, event_type, sequence)
)<CLUSTERED>;
CREATE TABLE taken_ids (
    user_key <INT> NOT NULL,
    id_digest <BLOB> NOT NULL,
    body_digest <BLOB>,
    at_ms <INT> NOT NULL,
    PRIMARY KEY (user_key, id_digest)
)<CLUSTERED>;
CREATE INDEX taken_ids_by_time ON taken_ids (at_ms);
CREATE TABLE seen_items (
    user_key <INT> NOT NULL,
    item_id <TEXT> NOT NULL,
    PRIMARY KEY (user_key, item_id)
)<CLUSTERED>;
CREATE TABLE rankings (
    user_key <INT> NOT NULL,
    timestamp_ms <INT> NOT NULL,
    ranking_id <TEXT> NOT NULL,
    model_version <TEXT> NOT NULL,
    slots <TEXT> NOT NULL,
    PRIMARY KEY (user_key, timestamp_ms, ranking_id)
)<CLUSTERED>;
CREATE TABLE answers (
    tenant <TEXT> NOT NULL,
    idempotency_key <TEXT> NOT NULL,
    user_key <INT> NOT NULL,
    body_digest <BLOB> NOT NULL,
    at_ms <INT> NOT NULL,
    result <TEXT> NOT NULL,
    PRIMARY KEY (tenant, idempotency_key)
)<CLUSTERED>;
CREATE INDEX answers_by_time ON answers (at_ms);
CREATE INDEX answers_by_user ON answers (user_key);
CREATE TABLE catalogues (
    tenant <TEXT> PRIMARY KEY,
    version <INT> NOT NULL
)<ROWS>;
CREATE TABLE items (
    tenant <TEXT> NOT NULL,
    item_id <TEXT> NOT NULL,
    version <INT> NOT NULL,
    available <INT> NOT NULL,
    deleted <INT> NOT NULL,
    features <TEXT> NOT NULL,
    PRIMARY KEY (tenant, item_id)
)<CLUSTERED>;
CREATE INDEX items_by_version ON items (tenant, version)
"""

_OF_A_USER = ("events", "seen_items", "rankings", "answers")
"""Tables that an erasure empties; ids stay taken."""

_EVENT_COLUMNS = (
    "event_id, item_id, event_type, timestamp_ms, value, visit_id, query, ranking_id, position, "
    "propensity, timestamp_given"
)
_ORDER_DOWN = "timestamp_ms DESC, item_id DESC, event_type DESC, sequence DESC"


@dataclass(frozen=True, slots=True)
class Append:
    """One call of `EventStore.append`."""

    tenant: str
    user_id: str
    events: Sequence[StoredEvent]
    received_ms: int
    key: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class _User:
    key: int
    epoch_ms: int
    touched_ms: int
    number: int
    num_events: int
    arrivals: int
    generation: int
    erased_ms: int
    features: str


_USER_COLUMNS = (
    "user_key, epoch_ms, touched_ms, state_version, num_events, arrivals, generation, erased_ms, "
    "features"
)


# --- changes


def append(session: Session, request: Append, *, retention: Retention, now_ms: int) -> AppendResult:
    """Adds events to a user; locks the user's row first, so that one append follows another."""
    user = _locked(session, request.tenant, request.user_id, retention=retention, now_ms=now_ms)
    key = request.key
    if key is not None:
        oldest = now_ms - retention.idempotency_ttl_ms
        if stored := _answered(session, request.tenant, user, key, oldest_ms=oldest):
            return stored
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
    return result


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
    user = _locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
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
    user = _locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
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
    user = _locked(session, tenant, user_id, retention=retention, now_ms=now_ms)
    if at_ms <= user.erased_ms:
        return Erasure(user.generation, user.number, 0)
    _clear(session, user.key)
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
        _clear(session, key)
        session.run("DELETE FROM taken_ids WHERE user_key = ?", (key,))
        gone += session.run("DELETE FROM users WHERE user_key = ?", (key,))
    return gone


# --- reading


def read(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserRecord:
    """As `EventStore.read`; the transaction must see one moment."""
    user = _find(session, tenant, user_id, retention=retention, now_ms=now_ms)
    version = _version(session, tenant, user)
    if user is None:
        return UserRecord(version)
    events = session.all(
        f"SELECT {_EVENT_COLUMNS} FROM events WHERE user_key = ? ORDER BY {_ORDER_DOWN} LIMIT ?",
        (user.key, retention.events),
    )
    seen = session.all("SELECT item_id FROM seen_items WHERE user_key = ?", (user.key,))
    return UserRecord(
        version=version,
        num_events=user.num_events,
        events=tuple(_event(row) for row in reversed(events)),
        seen_items=frozenset(item for (item,) in seen),
        features=json.loads(user.features),
        generation=user.generation,
    )


def version(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> UserVersion:
    """As `EventStore.version`."""
    user = _find(session, tenant, user_id, retention=retention, now_ms=now_ms)
    return _version(session, tenant, user)


def rankings(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> tuple[LoggedRanking, ...]:
    """As `EventStore.rankings`."""
    user = _find(session, tenant, user_id, retention=retention, now_ms=now_ms)
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


# --- parts


def _version(session: Session, tenant: str, user: _User | None) -> UserVersion:
    rows = session.all("SELECT version FROM catalogues WHERE tenant = ?", (tenant,))
    catalogue = int(rows[0][0]) if rows else 0
    if user is None:
        return UserVersion(catalogue=catalogue)
    return UserVersion(user.number, user.epoch_ms, catalogue)


def _find(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> _User | None:
    rows = session.all(
        f"SELECT {_USER_COLUMNS} FROM users WHERE tenant = ? AND user_id = ?", (tenant, user_id)
    )
    user = _User(*rows[0]) if rows else None
    return None if user is None or _is_forgotten(user, retention, now_ms) else user


def _locked(
    session: Session, tenant: str, user_id: str, *, retention: Retention, now_ms: int
) -> _User:
    """The user's row, made where missing, held against others until the transaction ends."""
    (row,) = session.all(
        "INSERT INTO users (tenant, user_id, epoch_ms, touched_ms) VALUES (?, ?, ?, ?) "
        # changes nothing; but it locks the row, and returns it as it is
        "ON CONFLICT (tenant, user_id) DO UPDATE SET generation = users.generation "
        f"RETURNING {_USER_COLUMNS}",
        (tenant, user_id, now_ms, now_ms),
    )
    user = _User(*row)
    if not _is_forgotten(user, retention, now_ms):
        return user
    _clear(session, user.key)
    session.run("DELETE FROM taken_ids WHERE user_key = ?", (user.key,))
    session.run(
        "UPDATE users SET epoch_ms = ?, touched_ms = ?, state_version = 0, num_events = 0, "
        "arrivals = 0, generation = 0, erased_ms = -1, features = '{}' WHERE user_key = ?",
        (now_ms, now_ms, user.key),
    )
    return _User(user.key, now_ms, now_ms, 0, 0, 0, 0, NEVER_MS, "{}")


def _is_forgotten(user: _User, retention: Retention, now_ms: int) -> bool:
    return retention.user_ttl_ms is not None and user.touched_ms < now_ms - retention.user_ttl_ms


def _sort_out(
    session: Session, user: _User, request: Append
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
    session: Session, user: _User, fresh: Mapping[bytes, StoredEvent], *, now_ms: int
) -> None:
    if not fresh:
        return
    session.run_many(
        "INSERT INTO taken_ids (user_key, id_digest, body_digest, at_ms) VALUES (?, ?, ?, ?)",
        [(user.key, identity, event.body_digest(), now_ms) for identity, event in fresh.items()],
    )
    session.run_many(
        f"INSERT INTO events (user_key, sequence, {_EVENT_COLUMNS}) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (user.key, number, *_event_values(event))
            for number, event in enumerate(fresh.values(), start=user.arrivals + 1)
        ],
    )
    seen = sorted({event.item_id or "" for event in fresh.values() if event.marks_seen()})
    if seen:
        session.run_many(
            "INSERT INTO seen_items (user_key, item_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(user.key, item_id) for item_id in seen],
        )


def _event_values(event: StoredEvent) -> tuple[Any, ...]:
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
    )


def _event(row: tuple[Any, ...]) -> StoredEvent:
    values = [row[0], row[1] or None, *row[2:-1], bool(row[-1])]
    return StoredEvent(*values)


def _prune(session: Session, key: int, kept: int) -> None:
    """Deletes all but the last events; the first that goes is found by the primary key's order."""
    columns = "timestamp_ms, item_id, event_type, sequence"
    rows = session.all(
        f"SELECT {columns} FROM events WHERE user_key = ? ORDER BY {_ORDER_DOWN} LIMIT 1 OFFSET ?",
        (key, kept),
    )
    if rows:
        session.run(
            f"DELETE FROM events WHERE user_key = ? AND ({columns}) <= (?, ?, ?, ?)",
            (key, *rows[0]),
        )


def _answered(
    session: Session, tenant: str, user: _User, key: IdempotencyKey, *, oldest_ms: int
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
    user: _User,
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


def _clear(session: Session, key: int) -> None:
    for table in _OF_A_USER:
        session.run(f"DELETE FROM {table} WHERE user_key = ?", (key,))
