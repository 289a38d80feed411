"""Item features as sparse rows: categorical values, lists of them, and the words of a text.

The vocabulary is counted on the training catalogue; an item met later is encoded by the same
vocabulary, and what it has that the vocabulary lacks is left out.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy import sparse

from raymeta.errors import SchemaError

MULTI_SEPARATOR = "|"
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class FeatureVocab:
    """Which (column, value) pairs are features, in index order.

    Attributes:
        entries: `[F]` pairs of column name and value.
        kinds: column -> `categorical`, `multi_categorical` or `text`; other kinds give no feature.
    """

    entries: tuple[tuple[str, str], ...]
    kinds: dict[str, str]

    @classmethod
    def count(cls, items: pa.Table, kinds: dict[str, str], *, min_items: int = 3) -> "FeatureVocab":
        """The values that at least `min_items` items have: rarer ones say too little."""
        usable = {c: k for c, k in kinds.items() if k in _READERS and c in items.column_names}
        entries: list[tuple[str, str]] = []
        for column in sorted(usable):
            counts: Counter[str] = Counter()
            for values in _values(items, column, usable[column]):
                counts.update(set(values))
            entries += [(column, v) for v, n in sorted(counts.items()) if n >= min_items]
        return cls(tuple(entries), usable)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def _index(self) -> dict[tuple[str, str], int]:
        return {entry: index for index, entry in enumerate(self.entries)}

    def encode(self, items: pa.Table) -> sparse.csr_array:
        """Features of items as `[N, F]` float32, each column's values scaled to sum to one."""
        missing = [c for c in self.kinds if c not in items.column_names]
        if missing:
            raise SchemaError(
                f"The item table lacks the column {missing[0]!r} that the model reads.",
                remedy=f"Give every item these columns: {', '.join(self.kinds)}.",
            )
        rows: list[int] = []
        columns: list[int] = []
        weights: list[float] = []
        for column, kind in self.kinds.items():
            for row, values in enumerate(_values(items, column, kind)):
                known = [self._index[(column, v)] for v in values if (column, v) in self._index]
                rows += [row] * len(known)
                columns += known
                weights += [1.0 / len(known)] * len(known)
        return sparse.csr_array(
            (np.array(weights, np.float32), (np.array(rows, int), np.array(columns, int))),
            shape=(items.num_rows, len(self)),
        )

    def to_table(self) -> pa.Table:
        """The vocabulary as a table, in index order."""
        columns, values = zip(*self.entries, strict=True) if self.entries else ((), ())
        return pa.table(
            {
                "column": pa.array(columns, pa.string()),
                "value": pa.array(values, pa.string()),
                "kind": pa.array([self.kinds[c] for c in columns], pa.string()),
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> "FeatureVocab":
        """What `to_table` wrote."""
        columns = table["column"].to_pylist()
        entries = tuple(zip(columns, table["value"].to_pylist(), strict=True))
        return cls(entries, dict(zip(columns, table["kind"].to_pylist(), strict=True)))


def _whole(value: object) -> list[str]:
    return [str(value)]


def _parts(value: object) -> list[str]:
    if isinstance(value, str):
        return [part for part in value.split(MULTI_SEPARATOR) if part]
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def _words(value: object) -> list[str]:
    return sorted(set(_WORD.findall(str(value).lower())))


_READERS = {"categorical": _whole, "multi_categorical": _parts, "text": _words}


def _values(items: pa.Table, column: str, kind: str) -> Iterator[list[str]]:
    read = _READERS[kind]
    return ([] if value is None else read(value) for value in items[column].to_pylist())
