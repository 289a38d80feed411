"""The tables of an event store in SQL, as SQLite and PostgreSQL have them."""

from dataclasses import dataclass


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


def schema_statements(dialect: Dialect) -> list[str]:
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


PLACE_ADDED = "ALTER TABLE events ADD COLUMN place TEXT"
"""From version 2 to 3."""

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
    place <TEXT>,
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
