"""Files as blocks: every format says the same, and lines stay right over block borders."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymeta.data import json_lines, readers
from raymeta.data.cleaning import RawBlock
from raymeta.data.conversion import to_milliseconds, to_numbers, to_text
from raymeta.data.readers import RowFile, row_files, split_file
from raymeta.errors import SchemaError

COLUMNS = {"user_id": "user", "value": "qty"}
ROWS = [(f"u{i}", str(i % 7)) for i in range(500)]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"log.{kind}"
    if kind == "parquet":
        users, values = zip(*ROWS, strict=True)
        pq.write_table(pa.table({"qty": values, "user": users, "x": values}), path)
        return path
    if "jsonl" in kind:
        lines = [json.dumps({"qty": int(v), "x": [1], "user": u}) for u, v in ROWS]
    else:
        sign = "\t" if "tsv" in kind else ","
        lines = [sign.join(["qty", "x", "user"]), *(sign.join([v, "", u]) for u, v in ROWS)]
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    return path


def read(file: RowFile) -> list[RawBlock]:
    return list(file.blocks())


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("block_bytes", [1 << 10, 16 << 20])
def test_every_format_says_the_same(
    tmp_path: Path, kind: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CSV_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(json_lines, "_CHUNK_BYTES", block_bytes)
    blocks = read(RowFile(write(tmp_path, kind), COLUMNS))
    table = pa.concat_tables([b.table for b in blocks])
    assert table.column_names == list(COLUMNS)
    texts = (to_text(table[name]).to_pylist() for name in COLUMNS)
    assert list(zip(*texts, strict=True)) == ROWS
    first = 2 if "csv" in kind or "tsv" in kind else 1
    lines = np.concatenate([b.line for b in blocks])
    np.testing.assert_array_equal(lines, np.arange(first, first + len(ROWS)))
    if block_bytes == 1 << 10 and kind != "parquet":
        assert len(blocks) > 3, "several blocks are what is tested"


def test_lines_skip_malformed_rows_over_block_borders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CSV_BLOCK_BYTES", 64)
    rows = [f"u{i},{i}" if i % 5 else f"u{i}" for i in range(2, 100)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,qty", *rows]) + "\n")
    blocks = read(RowFile(path, COLUMNS))
    for block in blocks:
        assert block.table["value"].to_pylist() == [str(line) for line in block.line]
    malformed = [row[0] for block in blocks for row in block.malformed]
    assert malformed == list(range(5, 100, 5))


def test_a_quoted_field_may_span_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user,qty\n"u\n1","2"\n"a,""b""",3\n')
    (block,) = read(RowFile(path, COLUMNS))
    assert block.table["user_id"].to_pylist() == ["u\n1", 'a,"b"']


def test_row_groups_are_read_apart_with_their_own_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_UNIT_ROWS", 100)
    path = write(tmp_path, "parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=60)
    parts = split_file(RowFile(path, COLUMNS))
    assert [part.row_groups for part in parts] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert sum(part.num_rows_hint for part in parts) == len(ROWS)
    lines = np.concatenate([b.line for part in parts for b in part.blocks()])
    np.testing.assert_array_equal(lines, np.arange(1, len(ROWS) + 1))


def test_a_row_longer_than_a_block_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CSV_BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(json_lines, "_CHUNK_BYTES", 1 << 20)
    path = tmp_path / "log.csv"
    path.write_text('user,qty\nu1,1\n"' + "x\n" * (2 << 20))
    with pytest.raises(SchemaError, match=r"log\.csv has a row of more than 1 MiB\. Look for a"):
        read(RowFile(path, COLUMNS))
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": "u", "qty": 1}\n' + "x" * (3 << 20))
    with pytest.raises(SchemaError, match=r"log\.jsonl: line 2 is longer than 1 MiB"):
        read(RowFile(path, COLUMNS))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,qty,user\n1,2,3\n")
    with pytest.raises(SchemaError, match=r"log\.csv has two columns 'user'"):
        read(RowFile(path, COLUMNS))


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    files = sorted(write(tmp_path, kind) for kind in ("csv", "parquet", "jsonl.gz"))
    (tmp_path / "notes.txt").touch()
    assert row_files([tmp_path]) == files


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([17850.0, None]), ["17850", None]),
        (pa.array([1.5, float("nan")]), ["1.5", None]),
        (pa.array([7, None], pa.int64()), ["7", None]),
        (pa.array([" a ", ""]), ["a", None]),
        (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
        (pa.array([True, None]), ["true", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_of_every_type_become_text(values: pa.Array, texts: list[str | None]) -> None:
    assert to_text(values).to_pylist() == texts


def test_numbers_are_read_or_told_apart() -> None:
    number, readable = to_numbers(pa.array(["1", " -2.5e1", ".5", "NA", None, "", "1,5", "x1"]))
    np.testing.assert_array_equal(number, [1.0, -25.0, 0.5, *[np.nan] * 5])
    assert readable.tolist() == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1_706_695_200]),
        pa.array([1_706_695_200_000]),
        pa.array([1_706_695_200.0]),
        pa.array(["1706695200"]),
        pa.array(["2024-01-31T10:00:00.000Z"]),
        pa.array(["2024-01-31T12:00:00+02:00"]),
        pa.array([1_706_695_200_000_000_000]).cast(pa.timestamp("ns")),
        pa.array([1_706_695_200_000_000]).cast(pa.timestamp("us", tz="Europe/Berlin")),
    ],
)
def test_one_instant_in_every_form(values: pa.Array) -> None:
    millis, readable = to_milliseconds(values)
    assert (millis.tolist(), readable.tolist()) == ([1_706_695_200_000], [True])


def test_a_stated_format_wins_over_a_guess() -> None:
    assert to_milliseconds(pa.array(["5"]), "epoch_s")[0].tolist() == [5_000]
    assert to_milliseconds(pa.array([5]), "epoch_ms")[0].tolist() == [5]
    assert to_milliseconds(pa.array(["20240131"]), "iso8601")[0].tolist() == [1_706_659_200_000]
    assert not to_milliseconds(pa.array(["now"]), "auto")[1].any()
