"""A block of raw rows in, a block of clean events and the refused rows with reasons out.

Pure functions over Arrow tables, vectorised: no row is looked at in Python. Duplicates are left to
`tasks`, which alone sees all events of a user together; reading is left to `readers`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymeta.data.conversion import to_milliseconds, to_numbers, to_text
from raymeta.data.schema import (
    EVENT_TYPES,
    MAX_FIELD_BYTES,
    MAX_ID_CHARS,
    TIMESTAMP,
    event_fields,
)

BLOCK_ROWS = 262_144
"""Rows read and cleaned at once: large enough for vectorised work, some tens of megabytes."""

REJECT_REASON = "reject_reason"
"""The raw column by which a source refuses rows itself."""

REJECTED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)

_MAX_SHOWN_CHARS = 200
"""Of each field of a refused row: enough to recognise it, and bounded for a huge field."""

# The years 1900 and 2200: what lies outside was counted in another unit.
_EARLIEST_MS = -2_208_988_800_000
_LATEST_MS = 7_258_118_400_000


@dataclass(frozen=True)
class RawBlock:
    """Rows as they were read, with the canonical column names and whatever types the file had.

    Attributes:
        table: raw columns; one called `reject_reason` (text) marks rows that the source itself
            refuses, for example a cancelled order.
        line: where each row stands in its file, 1-based.
        malformed: rows that could not be read at all, as (line, reason, text).
    """

    table: pa.Table
    line: NDArray[np.int64]
    malformed: Sequence[tuple[int, str, str]] = ()


@dataclass(frozen=True)
class CleaningRules:
    """What a log's rows have to fulfil.

    Attributes:
        optional: the optional columns that this log has; they are in every clean block.
        event_types: the types that are accepted.
        rename_event_types: the shop's names -> ours, applied first.
        event_type: the type of every event, where the log has no column for it.
        timestamp_format: `auto`, `epoch_s`, `epoch_ms` or `iso8601`.
        column_names: canonical name -> the shop's, for messages.
    """

    optional: tuple[str, ...] = ()
    event_types: tuple[str, ...] = EVENT_TYPES
    rename_event_types: Mapping[str, str] = field(default_factory=dict)
    event_type: str | None = None
    timestamp_format: str = "auto"
    column_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CleanBlock:
    """The events of a block, in the layout of `schema.event_fields`, and its refused rows.

    Attributes:
        events: clean rows, in reading order.
        line: `[events]` where each stands in its file.
        rejected: in the layout of `REJECTED_SCHEMA`.
    """

    events: pa.Table
    line: NDArray[np.int64]
    rejected: pa.Table


def clean_block(block: RawBlock, rules: CleaningRules, *, source: str) -> CleanBlock:
    """Converts every column to its type and sets apart the rows that cannot be used.

    A row is refused for the first of: what the source says, a missing or overlong id, a timestamp
    that cannot be read, an event type that is not declared, an optional field that is not what it
    should be. A search may come without an item.
    """
    raw = block.table
    reasons = _Reasons(raw.num_rows)
    if REJECT_REASON in raw.column_names:
        reasons.take_over(raw.column(REJECT_REASON))
    user_id = _identifier(raw.column("user_id"), "user_id", reasons)
    event_type = _event_type(raw, rules, reasons)
    searches = pc.equal(event_type, "search").fill_null(False).to_numpy(zero_copy_only=False)
    item_id = _identifier(raw.column("item_id"), "item_id", reasons, may_lack=searches)
    millis, readable = to_milliseconds(raw.column("timestamp"), rules.timestamp_format)
    reasons.add(~readable, "timestamp missing or not readable")
    reasons.add((millis < _EARLIEST_MS) | (millis > _LATEST_MS), "timestamp out of range")
    columns = {
        "user_id": user_id,
        "item_id": item_id,
        "event_type": event_type,
        "timestamp": pa.array(millis).cast(pa.timestamp("ms")).cast(TIMESTAMP),
    }
    for name in rules.optional:
        columns[name] = _optional(raw.column(name), name, reasons)
    kept = reasons.kept()
    schema = event_fields(rules.optional)
    events = pa.table([columns[name] for name in schema.names], names=schema.names)
    if not kept.all():
        events = events.filter(pa.array(kept))
    return CleanBlock(
        events=events.cast(schema),
        line=block.line[kept],
        rejected=pa.concat_tables(
            [
                malformed_rows(block.malformed, source=source),
                rejected_rows(raw, block.line, reasons.text(), ~kept, source=source),
            ]
        ),
    )


def rejected_rows(
    raw: pa.Table,
    line: NDArray[np.int64],
    reason: pa.Array,
    refused: NDArray[np.bool_],
    *,
    source: str,
) -> pa.Table:
    """The refused rows of a raw table, each as one text `column=value | ...`."""
    rows = raw.filter(pa.array(refused))
    names = [name for name in rows.column_names if name != REJECT_REASON]
    texts = [_shown(name, rows.column(name)) for name in names]
    row = pc.binary_join_element_wise(*texts, " | ") if texts else pa.nulls(len(rows), pa.string())
    return pa.table(
        [
            pa.repeat(pa.scalar(source), rows.num_rows),
            pa.array(line[refused]),
            reason.filter(pa.array(refused)),
            row,
        ],
        schema=REJECTED_SCHEMA,
    )


def malformed_rows(rows: Iterable[tuple[int, str, str]], *, source: str) -> pa.Table:
    """Rows that could not be split into fields, as (line, reason, text)."""
    listed = [
        {"source": source, "line": line, "reason": reason, "row": text[: 4 * _MAX_SHOWN_CHARS]}
        for line, reason, text in rows
    ]
    return pa.Table.from_pylist(listed, schema=REJECTED_SCHEMA)


class _Reasons:
    """Why each row of a block is refused: the first reason wins, code 0 means kept."""

    def __init__(self, num_rows: int) -> None:
        self._code = np.zeros(num_rows, np.int32)
        self._texts: list[str | None] = [None]

    def add(self, refused: NDArray[np.bool_], reason: str) -> None:
        hit = refused & (self._code == 0)
        if hit.any():
            self._texts.append(reason)
            self._code[hit] = len(self._texts) - 1

    def take_over(self, given: pa.ChunkedArray) -> None:
        encoded = given.combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        for code, text in enumerate(encoded.dictionary.to_pylist()):
            self.add(codes == code, text)

    def kept(self) -> NDArray[np.bool_]:
        return self._code == 0

    def text(self) -> pa.Array:
        return pa.array(self._texts, pa.string()).take(pa.array(self._code))


def _identifier(
    column: pa.ChunkedArray,
    name: str,
    reasons: _Reasons,
    *,
    may_lack: NDArray[np.bool_] | None = None,
) -> pa.Array:
    text = to_text(column)
    missing = text.is_null().to_numpy(zero_copy_only=False)
    reasons.add(missing if may_lack is None else missing & ~may_lack, f"{name} missing")
    # bytes first: characters are dearer to count, and only matter where the bytes are too many
    if (pc.max(pc.binary_length(text)).as_py() or 0) > MAX_ID_CHARS:
        overlong = pc.greater(pc.utf8_length(text), MAX_ID_CHARS).fill_null(False)
        reasons.add(
            overlong.to_numpy(zero_copy_only=False), f"{name} longer than {MAX_ID_CHARS} characters"
        )
    return text


def _event_type(raw: pa.Table, rules: CleaningRules, reasons: _Reasons) -> pa.Array:
    if rules.event_type is not None:
        return pa.repeat(pa.scalar(rules.event_type), raw.num_rows)
    encoded = to_text(raw.column("event_type")).dictionary_encode()
    names: list[str | None] = []
    accepted = set(rules.event_types)
    for given in encoded.dictionary.to_pylist():
        name = rules.rename_event_types.get(given, given)
        known = name if name in accepted else name.lower()
        names.append(known if known in accepted else None)
    missing = encoded.indices.is_null().to_numpy(zero_copy_only=False)
    reasons.add(missing, "event_type missing")
    text = pa.array(names, pa.string()).take(encoded.indices)
    reasons.add(text.is_null().to_numpy(zero_copy_only=False), "event type not declared")
    return text


def _optional(column: pa.ChunkedArray, name: str, reasons: _Reasons) -> pa.Array:
    if name in ("query", "ranking_id", "visit_id", "place"):
        text = to_text(column)
        limit = MAX_FIELD_BYTES if name == "query" else MAX_ID_CHARS
        overlong = pc.greater(pc.binary_length(text), limit).fill_null(False)
        reasons.add(overlong.to_numpy(zero_copy_only=False), f"{name} longer than {limit} bytes")
        return text
    number, readable = to_numbers(column)
    reasons.add(~readable, f"{name} is not a number")
    if name == "propensity":
        reasons.add((number <= 0) | (number > 1), "propensity outside (0, 1]")
    if name == "position":
        whole = np.isnan(number) | ((number >= 0) & (number < 2**31) & (number == np.trunc(number)))
        reasons.add(~whole, "position is not a whole number from 0 on")
        number = np.where(whole, number, np.nan)
        return pa.array(number, mask=np.isnan(number)).cast(pa.int32())
    return pa.array(number, mask=np.isnan(number))


def _shown(name: str, column: pa.ChunkedArray) -> pa.Array:
    text = to_text(column).fill_null("")
    return pc.binary_join_element_wise(
        name, pc.utf8_slice_codeunits(text, 0, _MAX_SHOWN_CHARS), "="
    )
