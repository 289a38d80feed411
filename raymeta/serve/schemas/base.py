"""The base of every message, and the values that many have."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)

EARLIEST_MS = 0
LATEST_MS = 253_402_300_799_000  # the last second of the year 9999

_NO_CONTROL = r"^[^\x00-\x1f\x7f]*$"  # databases end texts at some, paths at others
_NO_NUL = r"^[^\x00]*$"

Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_NO_CONTROL)]
"""A user's, item's, event's, visit's or ranking's id: any text without control characters,
compared as it is."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_NO_CONTROL)]

Text = Annotated[str, StringConstraints(max_length=1024, pattern=_NO_NUL)]

# Parameters of a path or a query that may be left out. They are described as texts and no more: a
# null cannot be sent there.
MaybeId = Annotated[Id | None, WithJsonSchema(TypeAdapter(Id).json_schema())]
MaybeName = Annotated[Name | None, WithJsonSchema(TypeAdapter(Name).json_schema())]
MaybeText = Annotated[Text | None, WithJsonSchema(TypeAdapter(Text).json_schema())]

Features = dict[Name, JsonValue]
"""What is known of a user or an item, by feature name."""


def _to_ms(value: Any) -> Any:
    """Integer milliseconds, or ISO-8601 with its zone; what is neither is left to be refused."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(
            "write UTC milliseconds, or ISO-8601 such as 2026-03-01T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ValueError("add the time zone, such as Z for UTC")
    return (moment - datetime.fromtimestamp(0, UTC)) // _MILLISECOND


_MILLISECOND = datetime.fromtimestamp(0.001, UTC) - datetime.fromtimestamp(0, UTC)

TimestampMs = Annotated[
    int,
    BeforeValidator(_to_ms, json_schema_input_type=int | str),
    Field(ge=EARLIEST_MS, le=LATEST_MS, strict=True),
]


class Message(BaseModel):
    """A request, an answer, or a part of one: frozen, without unknown keys or infinite numbers;
    a value of another type is refused, not converted."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def examples(*values: dict[str, Any]) -> ConfigDict:
    """A `model_config` that shows these in the API's own description."""
    return ConfigDict(json_schema_extra={"examples": list(values)})
