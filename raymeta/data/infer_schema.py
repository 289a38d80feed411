"""A first `schema.yaml` for a shop's files, guessed from names and the first rows, to be edited."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymeta.data.conversion import to_numbers, to_text
from raymeta.data.readers import RowFile, column_names, row_files
from raymeta.data.schema import (
    EVENT_TYPES,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    EventColumns,
    EventSchema,
    FeatureKind,
    LogSchema,
    TableSchema,
    dump_schema,
)

UNKNOWN = "CHANGE_ME"
"""Stands for a required column that could not be guessed."""

# Names that shops commonly use, most telling first; compared in lower case without signs.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("userid", "user", "customerid", "customer", "visitorid", "uid", "clientid",
                "householdid", "reviewerid", "memberid", "buyerid"),
    "item_id": ("itemid", "item", "productid", "product", "sku", "asin", "movieid", "articleid",
                "stockcode", "iid", "videoid", "songid", "bookid"),
    "event_type": ("eventtype", "event", "action", "behavior", "behaviour", "interaction",
                   "interactiontype", "type"),
    "timestamp": ("timestamp", "time", "eventtime", "ts", "datetime", "date", "createdat",
                  "invoicedate", "unixtime"),
    "value": ("value", "rating", "quantity", "qty", "stars", "price", "amount"),
    "query": ("query", "searchquery", "searchterm", "keywords"),
    "ranking_id": ("rankingid", "requestid", "listid", "impressionid"),
    "position": ("position", "rank", "slot"),
    "propensity": ("propensity",),
    "visit_id": ("visitid", "sessionid", "session", "orderid", "basketid", "invoice", "invoiceno",
                 "usersession"),
    "place": ("place", "storeid", "store", "branch", "branchid", "channel", "location"),
}  # fmt: skip

_HEADER = """\
# How to read these files; guessed from their names and first rows. Check every line, then run:
#   raymeta prepare files {options} --schema THIS_FILE --out DIR
# events.columns: the names on the right are the files'. Kinds of item and user columns:
# categorical, multi_categorical, numeric, text, ignore.
"""


def infer_schema(
    events: Sequence[Path], *, items: Path | None = None, users: Path | None = None
) -> LogSchema:
    """Guesses how the files are to be read.

    A required column that no name suggests is written as `CHANGE_ME`; reading with it is refused
    by name, with the columns that there are.
    """
    file = row_files(events)[0]
    delimiter = _guess_delimiter(file)
    columns = _guess_columns(column_names(file, delimiter=delimiter))
    event_types: tuple[str, ...] = ()
    constant = None
    if "event_type" in columns:
        event_types = _own_types(file, columns["event_type"], delimiter)
    else:
        constant = "rating" if "rating" in columns.get("value", "").lower() else "purchase"
    required = {name: columns.get(name, UNKNOWN) for name in REQUIRED_COLUMNS}
    optional = {name: columns[name] for name in OPTIONAL_COLUMNS if name in columns}
    return LogSchema(
        events=EventSchema(
            columns=EventColumns.model_validate({**required, **optional}),
            event_type=constant,
            event_types=event_types,
            delimiter=delimiter,
        ),
        items=_guess_table(items, "item_id"),
        users=_guess_table(users, "user_id"),
    )


def schema_text(schema: LogSchema, *, options: str) -> str:
    """The schema with a header that says what to do with it."""
    return _HEADER.format(options=options) + dump_schema(schema)


def _guess_columns(present: Sequence[str]) -> dict[str, str]:
    plain = {"".join(filter(str.isalnum, name.lower())): name for name in present}
    found: dict[str, str] = {}
    for ours, aliases in _ALIASES.items():
        name = next((plain[alias] for alias in aliases if alias in plain), None)
        if name is not None and name not in found.values():
            found[ours] = name
    return found


def _guess_table(path: Path | None, name: str) -> TableSchema:
    if path is None:
        return TableSchema(id=name)
    delimiter = _guess_delimiter(path)
    present = column_names(path, delimiter=delimiter)
    identifier = _guess_columns(present).get(name, UNKNOWN)
    if identifier == UNKNOWN and "id" in present:
        identifier = "id"
    table = _first_rows(path, present, delimiter)
    kinds = {c: _guess_kind(table.column(c)) for c in present if c != identifier}
    return TableSchema(id=identifier, columns=kinds, delimiter=delimiter)


def _guess_kind(column: pa.ChunkedArray) -> FeatureKind:
    if pa.types.is_list(column.type):
        return FeatureKind.MULTI_CATEGORICAL
    text = to_text(column).drop_null()
    if len(text) == 0:
        return FeatureKind.IGNORE
    distinct = len(pc.unique(text))
    number, readable = to_numbers(column)
    if np.mean(readable) > 0.95 and np.isfinite(number).any() and distinct > 20:
        return FeatureKind.NUMERIC
    if pc.mean(pc.match_substring(text, "|").cast(pa.float64())).as_py() > 0.2:
        return FeatureKind.MULTI_CATEGORICAL
    words = pc.mean(pc.count_substring(text, " ")).as_py()
    if distinct > 0.5 * len(text) and distinct > 20:
        return FeatureKind.TEXT if words >= 1 else FeatureKind.IGNORE
    return FeatureKind.CATEGORICAL


def _own_types(path: Path, column: str, delimiter: str) -> tuple[str, ...]:
    """Event types of the first rows that need a declaration."""
    values = to_text(_first_rows(path, [column], delimiter).column(column))
    seen = sorted(v for v in pc.unique(values).to_pylist() if v)
    return tuple(v for v in seen if v.lower() not in EVENT_TYPES)[:50]


def _first_rows(path: Path, columns: Sequence[str], delimiter: str) -> pa.Table:
    file = RowFile(path, {name: name for name in columns}, delimiter=delimiter)
    block = next(file.blocks(), None)
    if block is None:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return block.table


def _guess_delimiter(path: Path) -> str:
    """The sign that parts the header into most fields; a comma where none does."""
    if ".csv" not in path.suffixes:
        return ","
    fields = {sign: len(column_names(path, delimiter=sign)) for sign in (",", ";", "\t", "|")}
    return max(fields, key=lambda sign: fields[sign])
