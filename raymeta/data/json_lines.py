"""JSON Lines as Arrow tables: a chunk of lines at a time, fast where the chunk is regular.

Arrow parses a chunk whose keys keep their types. Where one line is broken or changes a type, that
chunk alone is read line by line, so that a bad line is reported and the others are kept.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json

from raymeta.data.cleaning import RawBlock
from raymeta.errors import SchemaError

_CHUNK_BYTES = 16 << 20
"""Read at once, and so the longest line."""


def read_blocks(path: Path, columns: Sequence[str]) -> Iterator[RawBlock]:
    """The given keys of each line; a key that a line lacks is null.

    Raises:
        SchemaError: the file is not UTF-8, or has a line that does not end within 16 MiB.
    """
    schema: pa.Schema | None = None
    first_line = 1
    for chunk in _chunks(path, first_line_of_file=first_line):
        num_lines = chunk.count(b"\n")
        table = None
        for candidate in (schema, None):
            schema = candidate if candidate is not None else _infer(chunk, columns)
            table = None if schema is None else _parse(chunk, schema)
            if table is not None:
                break
        if table is not None and table.num_rows == num_lines:
            yield RawBlock(table, np.arange(first_line, first_line + num_lines))
        else:
            yield _line_by_line(chunk, columns, first_line)
        first_line += num_lines


def key_names(path: Path) -> list[str]:
    """The keys of the first lines, in the order they appear."""
    chunk = next(_chunks(path, first_line_of_file=1), b"")
    names: dict[str, None] = {}
    for line in chunk.splitlines()[:1000]:
        value = _object(line)
        names.update(dict.fromkeys(value or ()))
    return list(names)


def not_utf8(path: Path) -> SchemaError:
    """The error for a file with bytes that are not UTF-8, with the first line that has them."""
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                value = line[error.start : error.start + 1]
                return SchemaError(
                    f"{path.name} is not UTF-8: line {number} has the byte 0x{value.hex()}.",
                    remedy="Convert it, for example: iconv -f latin1 -t utf-8 OLD > NEW",
                )
    return SchemaError(f"{path.name} is not UTF-8.", remedy="Convert it to UTF-8.")


def _chunks(path: Path, *, first_line_of_file: int) -> Iterator[bytes]:
    """Whole lines, each with its end, about `_CHUNK_BYTES` at a time."""
    rest, line = b"", first_line_of_file
    with pa.input_stream(str(path), compression="detect") as stream:
        while data := stream.read(_CHUNK_BYTES):
            head, end, tail = data.rpartition(b"\n")
            chunk, rest = (rest + head + end, tail) if end else (b"", rest + data)
            if len(rest) > _CHUNK_BYTES:
                raise SchemaError(
                    f"{path.name}: line {line + chunk.count(10)} is longer than "
                    f"{_CHUNK_BYTES >> 20} MiB.",
                    remedy="Write one JSON object a line.",
                )
            if chunk:
                yield _checked(path, chunk)
                line += chunk.count(b"\n")
    if rest:
        yield _checked(path, rest + b"\n")


def _checked(path: Path, chunk: bytes) -> bytes:
    try:
        chunk.decode("utf-8")
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    return chunk.removeprefix(b"\xef\xbb\xbf")


def _infer(chunk: bytes, columns: Sequence[str]) -> pa.Schema | None:
    """The types of the wanted keys as this chunk has them; None where they are not regular."""
    try:
        found = pyarrow.json.read_json(io.BytesIO(chunk), read_options=_options(chunk)).schema
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    fields = []
    for name in columns:
        kind = found.field(name).type if name in found.names else pa.string()
        # what looks like a time is text here: an id may look like one
        is_text = pa.types.is_timestamp(kind) or pa.types.is_null(kind)
        fields.append(pa.field(name, pa.string() if is_text else kind))
    return pa.schema(fields)


def _parse(chunk: bytes, schema: pa.Schema) -> pa.Table | None:
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(
            io.BytesIO(chunk), read_options=_options(chunk), parse_options=parse
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table.select(schema.names)


def _options(chunk: bytes) -> pyarrow.json.ReadOptions:
    return pyarrow.json.ReadOptions(use_threads=False, block_size=len(chunk) + 1)


def _line_by_line(chunk: bytes, columns: Sequence[str], first_line: int) -> RawBlock:
    rows: list[dict[str, str | None]] = []
    lines: list[int] = []
    malformed: list[tuple[int, str, str]] = []
    for number, line in enumerate(chunk.split(b"\n")[:-1], start=first_line):
        if not line.strip():
            continue
        value = _object(line)
        if value is None:
            malformed.append((number, "not a JSON object", line.decode("utf-8")))
            continue
        rows.append({name: _as_text(value.get(name)) for name in columns})
        lines.append(number)
    schema = pa.schema([(name, pa.string()) for name in columns])
    return RawBlock(pa.Table.from_pylist(rows, schema=schema), np.array(lines, np.int64), malformed)


def _object(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
