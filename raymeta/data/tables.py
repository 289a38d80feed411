"""Tables of items and users, cleaned: one row an id, each column as its kind says.

Read whole, since a catalogue and its features are in memory wherever they are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymeta.data.cleaning import REJECTED_SCHEMA, malformed_rows, rejected_rows
from raymeta.data.conversion import to_numbers, to_text
from raymeta.data.readers import RowFile, column_names
from raymeta.data.schema import MAX_FIELD_BYTES, MAX_ID_CHARS, FeatureKind, TableSchema
from raymeta.data.sources.base import FeatureTable
from raymeta.errors import ConfigError, SchemaError


@dataclass(frozen=True)
class RawTable:
    """A table as it was read.

    Attributes:
        name: its file.
        table: raw columns under the file's own names.
        line: `[rows]` where each stands, 1-based.
        malformed: rows that could not be split, as (line, reason, text).
    """

    name: str
    table: pa.Table
    line: NDArray[np.int64]
    malformed: Sequence[tuple[int, str, str]] = ()


def read_table(path: Path, schema: TableSchema, *, section: str) -> RawTable:
    """Reads a whole file; `section` is `items` or `users`, for messages.

    Raises:
        SchemaError: the file is empty, or lacks the id.
        ConfigError: the schema names a column that the file lacks.
    """
    present = column_names(path, delimiter=schema.delimiter)
    if schema.id not in present:
        raise SchemaError(
            f"{path.name} has no column {schema.id!r}; it has: {', '.join(present)}.",
            remedy=f"Set {section}.id in schema.yaml to the column that holds the id.",
        )
    unknown = [name for name in schema.columns if name not in present]
    if unknown:
        raise ConfigError(
            f"schema.yaml: {section}.columns names {unknown[0]!r}, which {path.name} lacks; "
            f"it has: {', '.join(present)}.",
            remedy="Correct the name, or take the line out.",
        )
    columns = {name: name for name in present}
    blocks = list(RowFile(path, columns, delimiter=schema.delimiter, setting=section).blocks())
    if not blocks:
        raise SchemaError(f"{path.name} has no rows.", remedy="Give a table with rows.")
    return RawTable(
        name=path.name,
        table=pa.concat_tables([b.table for b in blocks], promote_options="permissive"),
        line=np.concatenate([b.line for b in blocks]),
        malformed=[row for b in blocks for row in b.malformed],
    )


def clean_table(
    raw: RawTable, *, id_column: str, name: str, kinds: Mapping[str, FeatureKind], separator: str
) -> FeatureTable:
    """One row an id; columns without a kind are kept and give no features.

    A row with a missing, overlong or repeated id or with a huge text is refused. A number that
    cannot be read is reported, and its row kept with nothing in that place.

    Args:
        raw: the table as read.
        id_column: which column holds the id.
        name: what the id is called from here on: `item_id` or `user_id`.
        kinds: column -> kind.
        separator: between the values of a multi-categorical text.
    """
    table = raw.table
    ids = to_text(table.column(id_column))
    missing = ids.is_null().to_numpy(zero_copy_only=False)
    overlong = pc.greater(pc.utf8_length(ids), MAX_ID_CHARS).fill_null(False)
    refusals = [
        (missing, f"{name} missing in {raw.name}"),
        (overlong.to_numpy(zero_copy_only=False), f"{name} longer than {MAX_ID_CHARS} characters"),
        (_repeated(ids) & ~missing, f"{name} repeated in {raw.name}"),
    ]
    columns: dict[str, pa.Array] = {name: ids}
    remarks: list[tuple[NDArray[np.bool_], str]] = []
    for column in [c for c in table.column_names if c != id_column]:
        values = table.column(column)
        kind = kinds.get(column, FeatureKind.IGNORE)
        if kind == FeatureKind.NUMERIC:
            number, readable = to_numbers(values)
            remarks.append((~readable, f"{column} is not a number (row kept without it)"))
            columns[column] = pa.array(number, mask=np.isnan(number))
        elif kind == FeatureKind.MULTI_CATEGORICAL:
            columns[column] = _value_lists(values, separator)
        else:
            columns[column] = to_text(values)
            huge = pc.greater(pc.binary_length(columns[column]), MAX_FIELD_BYTES).fill_null(False)
            huge_rows = huge.to_numpy(zero_copy_only=False)
            refusals.append((huge_rows, f"{column} longer than {MAX_FIELD_BYTES} bytes"))
    refused, rejected = _refused(raw, refusals, remarks)
    kept = pa.table(columns).filter(pa.array(~refused))
    return FeatureTable(
        table=kept,
        kinds={c: kinds.get(c, FeatureKind.IGNORE) for c in columns if c != name},
        rejected=rejected,
    )


def _refused(
    raw: RawTable,
    refusals: Sequence[tuple[NDArray[np.bool_], str]],
    remarks: Sequence[tuple[NDArray[np.bool_], str]],
) -> tuple[NDArray[np.bool_], pa.Table]:
    refused = np.zeros(raw.table.num_rows, np.bool_)
    found = [malformed_rows(raw.malformed, source=raw.name)]
    for rows, reason in refusals:
        found.append(_report(raw, rows & ~refused, reason))
        refused |= rows
    found += [_report(raw, rows & ~refused, reason) for rows, reason in remarks]
    return refused, pa.concat_tables(found).cast(REJECTED_SCHEMA)


def _report(raw: RawTable, rows: NDArray[np.bool_], reason: str) -> pa.Table:
    reasons = pa.repeat(pa.scalar(reason), raw.table.num_rows)
    return rejected_rows(raw.table, raw.line, reasons, rows, source=raw.name)


def _repeated(ids: pa.Array) -> NDArray[np.bool_]:
    """True at every occurrence of an id but the first."""
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    repeated = np.ones(len(codes), np.bool_)
    repeated[first] = False
    return repeated


def _value_lists(values: pa.ChunkedArray, separator: str) -> pa.Array:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return values.combine_chunks().cast(pa.list_(pa.string()))
    return pc.split_pattern(to_text(values), separator)
