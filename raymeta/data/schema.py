"""What the tables of a data set hold: event columns, feature kinds, and how a shop's names map.

`LogSchema` is the `schema.yaml` that a person writes for the `files` source; `FeatureSchema` is
the `schema.yaml` that a prepared data set carries. Reading and cleaning rows is left to `readers`
and `cleaning`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

import pyarrow as pa
import yaml
from pydantic import Field

from raymeta.config.base import StrictModel, load_settings

EVENT_TYPES = ("cart", "click", "impression", "purchase", "rating", "search", "view")
"""The event types that need no declaration."""

REQUIRED_COLUMNS = ("user_id", "item_id", "event_type", "timestamp")

OPTIONAL_COLUMNS: dict[str, pa.DataType] = {
    "value": pa.float64(),
    "query": pa.string(),
    "ranking_id": pa.string(),
    "position": pa.int32(),
    "propensity": pa.float64(),
    "visit_id": pa.string(),
    "place": pa.string(),
}

TIMESTAMP = pa.timestamp("ms", tz="UTC")

MAX_ID_CHARS = 512
"""Longer ids are a sign of a misread file, and every index would carry them."""

MAX_FIELD_BYTES = 64 * 1024
"""Longer texts (a query, say) are refused: one of them would outweigh thousands of events."""


class FeatureKind(StrEnum):
    """How an item or user column becomes features."""

    CATEGORICAL = "categorical"
    MULTI_CATEGORICAL = "multi_categorical"
    NUMERIC = "numeric"
    TEXT = "text"
    IGNORE = "ignore"


class EventColumns(StrictModel):
    """The names that a shop's log gives to the columns of an event."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    event_type: str = "event_type"
    timestamp: str = "timestamp"
    value: str | None = None
    """Rating, quantity or price; a number."""
    query: str | None = None
    """What was searched for; text."""
    ranking_id: str | None = None
    """Which shown list the item stood in."""
    position: str | None = None
    """0-based place in that list."""
    propensity: str | None = None
    """Probability with which the item was shown or examined there, in (0, 1]."""
    visit_id: str | None = None
    """Basket, order or session; without it events closer than `visit_gap_minutes` are one visit."""
    place: str | None = None
    """Where it happened: a branch, a channel, a country's site; text."""

    def optional(self) -> dict[str, str]:
        """The optional columns that this log has: ours -> the shop's name."""
        return {name: theirs for name in OPTIONAL_COLUMNS if (theirs := getattr(self, name))}


class EventSchema(StrictModel):
    """How to read a shop's event log."""

    columns: EventColumns = EventColumns()
    event_type: str | None = None
    """The type of every event, for a log that has no column for it."""
    event_types: tuple[str, ...] = ()
    """Types of the shop's own, beside view click cart purchase rating search impression."""
    rename_event_types: dict[str, str] = Field(default_factory=dict)
    """The shop's names of event types -> ours, e.g. `buy: purchase`."""
    timestamp_format: Literal["auto", "epoch_s", "epoch_ms", "iso8601"] = "auto"
    """How numbers and texts in the timestamp column are read; `auto` tells them apart."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between the fields of a CSV file."""


class TableSchema(StrictModel):
    """How to read a table of items or users."""

    id: str
    """The column with the id."""
    columns: dict[str, FeatureKind] = Field(default_factory=dict)
    """Column -> categorical, multi_categorical, numeric, text or ignore."""
    separator: str = "|"
    """Between the values of a multi_categorical field that is one text."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between the fields of a CSV file."""


class LogSchema(StrictModel):
    """A whole `schema.yaml` of the `files` source."""

    events: EventSchema = EventSchema()
    items: TableSchema = TableSchema(id="item_id")
    users: TableSchema = TableSchema(id="user_id")


class FeatureSchema(StrictModel):
    """The `schema.yaml` of a prepared data set: what each item and user column is."""

    items: dict[str, FeatureKind] = Field(default_factory=dict)
    users: dict[str, FeatureKind] = Field(default_factory=dict)


def load_log_schema(path: Path) -> LogSchema:
    """Reads the `schema.yaml` of a shop's files; a `ConfigError` names what is wrong in it."""
    return load_settings(LogSchema, path)


def load_feature_schema(dataset_dir: str | Path) -> FeatureSchema:
    """Reads the `schema.yaml` of a prepared data set."""
    return load_settings(FeatureSchema, Path(dataset_dir) / "schema.yaml")


def dump_schema(schema: LogSchema | FeatureSchema) -> str:
    """The schema as YAML, in the order of its fields."""
    return yaml.safe_dump(schema.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def event_fields(optional: tuple[str, ...]) -> pa.Schema:
    """The Arrow schema of an events table that has these optional columns."""
    return pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("item_id", pa.string()),
            pa.field("event_type", pa.string(), nullable=False),
            pa.field("timestamp", TIMESTAMP, nullable=False),
            *(pa.field(name, OPTIONAL_COLUMNS[name]) for name in optional),
        ]
    )
