"""Files of rows as blocks of Arrow tables: CSV, JSON Lines and Parquet, plain or gzipped.

Reads what is there and says what a file lacks; what the values mean is left to `cleaning`. CSV
fields stay text, so that one odd row cannot decide the type of a column.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.data import json_lines
from raymeta.data.cleaning import BLOCK_ROWS, RawBlock
from raymeta.errors import DataError, SchemaError

CSV_BLOCK_BYTES = 16 << 20
"""Read at once, and so the longest row: one that is longer is a missing quote."""

_UNIT_ROWS = 2_000_000
"""Rows of Parquet that are read as one unit of work."""

_BYTES_PER_ROW = {"csv": 60, "jsonl": 150}
_GZIP_RATIO = 5
"""Guesses for sizing only."""

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class RowFile:
    """A file, or some row groups of a Parquet file, that yields rows under our names.

    Attributes:
        path: the file.
        columns: our name -> the file's; an entry of `optional` may be absent.
        delimiter: between the fields of a CSV file; a `.tsv` file has tabs.
        row_groups: of a Parquet file, from and to; all where it is None.
        first_row: 0-based number of the first row, where earlier row groups are left out.
        num_rows_hint: about how many rows.
        setting: where the mapping is written, for messages.
    """

    path: Path
    columns: Mapping[str, str]
    delimiter: str = ","
    row_groups: tuple[int, int] | None = None
    first_row: int = 0
    num_rows_hint: int = 0
    setting: str = "events.columns"

    @property
    def name(self) -> str:
        return self.path.name

    def blocks(self) -> Iterator[RawBlock]:
        """The rows, `columns` only, about `BLOCK_ROWS` at a time.

        Raises:
            SchemaError: the file is empty, not UTF-8, of another format, or lacks a column.
        """
        read = {"csv": _csv_blocks, "jsonl": _json_blocks, "parquet": _parquet_blocks}
        return read[format_of(self.path)](self)


def split_file(file: RowFile) -> list[RowFile]:
    """The parts of a file that can be read apart: row groups of Parquet, else the whole file."""
    kind = format_of(file.path)
    size = _size(file.path)
    if kind != "parquet":
        hint = size // _BYTES_PER_ROW[kind]
        hint *= _GZIP_RATIO if file.path.suffix.lower() == ".gz" else 1
        return [replace(file, num_rows_hint=max(1, hint))]
    metadata = _open_parquet(file.path).metadata
    parts: list[RowFile] = []
    start = first = rows = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= _UNIT_ROWS or group == metadata.num_row_groups - 1:
            groups = (start, group + 1)
            parts.append(replace(file, row_groups=groups, first_row=first, num_rows_hint=rows))
            start, first, rows = group + 1, first + rows, 0
    return parts or [replace(file, num_rows_hint=0)]


def row_files(paths: Iterable[Path]) -> list[Path]:
    """The files meant by paths, of which some may be folders; each is known to be readable."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if _suffix(p) in _SUFFIXES]
            if not inside:
                raise DataError(
                    f"The folder {path} holds no CSV, JSON Lines or Parquet file.",
                    remedy="Name the files themselves, or rename them by their format.",
                )
            found += inside
        else:
            format_of(path)
            _size(path)
            found.append(path)
    return found


def column_names(path: Path, *, delimiter: str = ",") -> list[str]:
    """The columns of a file; of JSON Lines, the keys of its first block."""
    kind = format_of(path)
    if kind == "parquet":
        return list(_open_parquet(path).schema_arrow.names)
    _refuse_empty(path)
    if kind == "jsonl":
        return json_lines.key_names(path)
    with _readable_csv(path), _open_csv(path, delimiter, lambda _row: "skip") as reader:
        names = list(reader.schema.names)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise SchemaError(
            f"{path.name} has two columns {repeated[0]!r}.", remedy="Rename one in its header."
        )
    return names


def format_of(path: Path) -> str:
    """`csv`, `jsonl` or `parquet`, by the file's name."""
    kind = _SUFFIXES.get(_suffix(path))
    if kind is None:
        raise SchemaError(
            f"{path.name}: a file of this name is of no known format.",
            remedy="Name it .csv, .tsv, .jsonl or .parquet (and .gz for the first three).",
        )
    return kind


def _csv_blocks(file: RowFile) -> Iterator[RawBlock]:
    _require(file, column_names(file.path, delimiter=file.delimiter))
    skipped: list[tuple[int, str, str]] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        skipped.append((row.number, reason, row.text))
        return "skip"

    last_line = 1  # the header
    ahead: list[int] = []
    theirs = list(file.columns.values())
    with (
        _readable_csv(file.path),
        _open_csv(file.path, file.delimiter, skip, columns=theirs) as reader,
    ):
        for batch in reader:
            # the reader parses ahead, so that skipped rows of later blocks may be known already
            malformed = skipped.copy()
            skipped.clear()
            ahead = [n for n in (*ahead, *(row[0] for row in malformed)) if n > last_line]
            lines = _lines_after(last_line, batch.num_rows, ahead)
            last_line = max([last_line, *lines[-1:].tolist()])
            table = pa.Table.from_batches([batch]).rename_columns(list(file.columns))
            for start in range(0, max(1, batch.num_rows), BLOCK_ROWS):
                yield RawBlock(
                    table.slice(start, BLOCK_ROWS),
                    lines[start : start + BLOCK_ROWS],
                    malformed if start == 0 else (),
                )


def _open_csv(
    path: Path,
    delimiter: str,
    on_invalid_row: Callable[[pyarrow.csv.InvalidRow], str],
    *,
    columns: Sequence[str] = (),
) -> pyarrow.csv.CSVStreamingReader:
    return pyarrow.csv.open_csv(
        path,
        # one thread, so that a skipped row's number is known
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=_delimiter(path, delimiter),
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=on_invalid_row,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), include_columns=list(columns)
        ),
    )


def _lines_after(last: int, num_rows: int, skipped: Sequence[int]) -> NDArray[np.int64]:
    """The next lines `[num_rows]` after `last` that hold no skipped row."""
    candidates = np.arange(last + 1, last + 1 + num_rows + len(skipped))
    return candidates[~np.isin(candidates, skipped)][:num_rows]


def _json_blocks(file: RowFile) -> Iterator[RawBlock]:
    _refuse_empty(file.path)
    for number, block in enumerate(json_lines.read_blocks(file.path, list(file.columns.values()))):
        if number == 0 and block.table.num_rows:
            present = [
                c for c in block.table.column_names if block.table[c].null_count < len(block.table)
            ]
            _require(file, present)
        yield RawBlock(block.table.rename_columns(list(file.columns)), block.line, block.malformed)


def _parquet_blocks(file: RowFile) -> Iterator[RawBlock]:
    parquet = _open_parquet(file.path)
    _require(file, parquet.schema_arrow.names)
    groups = None if file.row_groups is None else list(range(*file.row_groups))
    theirs = list(file.columns.values())
    row = file.first_row
    for batch in parquet.iter_batches(BLOCK_ROWS, row_groups=groups, columns=theirs):
        table = pa.Table.from_batches([batch]).select(theirs).rename_columns(list(file.columns))
        yield RawBlock(table, np.arange(row + 1, row + 1 + table.num_rows))
        row += table.num_rows


def _require(file: RowFile, present: Sequence[str]) -> None:
    for ours, theirs in file.columns.items():
        if theirs in present:
            continue
        near = difflib.get_close_matches(theirs, present, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SchemaError(
            f"{file.name} has no column {theirs!r} (for {ours}); it has: {', '.join(present)}.",
            remedy=f"Set {file.setting}.{ours} in schema.yaml to the name it has here.{hint}",
        )


def _open_parquet(path: Path) -> pq.ParquetFile:
    _refuse_empty(path)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(
            f"{path.name} is not a Parquet file: {error}",
            remedy="Check that it was written to its end, or name it by its real format.",
        ) from None


class _readable_csv:  # noqa: N801  (reads as the words of a with statement)
    """Turns what Arrow says of a broken CSV file into what to do about it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, pa.ArrowInvalid):
            return
        text = str(error)
        if "UTF8" in text or "codec" in text:
            raise json_lines.not_utf8(self._path) from None
        if "straddling" in text:
            raise SchemaError(
                f"{self._path.name} has a row of more than {CSV_BLOCK_BYTES >> 20} MiB.",
                remedy="Look for a quote that is opened and not closed.",
            ) from None
        raise SchemaError(
            f"{self._path.name} cannot be read as CSV: {text}", remedy="Correct the file."
        ) from None


def _refuse_empty(path: Path) -> None:
    if _size(path) == 0:
        raise SchemaError(f"{path.name} is empty.", remedy="Give a file with rows.")


def _size(path: Path) -> int:
    if not path.is_file():
        raise DataError(f"There is no file {path}.", remedy="Check the path.")
    return path.stat().st_size


def _suffix(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


def _delimiter(path: Path, given: str) -> str:
    return "\t" if _suffix(path) == ".tsv" and given == "," else given
