"""Columns of items or users as rows of a vocabulary: the one encoding that models read.

A column is a field with its own run of vocabulary rows, and the first row of a field stands for
"unknown": a value that is missing, too rare in training, or new. A record becomes slots, pairs of
(vocabulary row, weight):

    categorical                 one slot, its value with weight 1
    multi_categorical, text     a slot a value (of a text: a word), weights that sum to 1
    numeric                     one slot, weighted by the standardised number

The sum over a field's slots of weight x embedding is the field's embedding, and slots as a sparse
matrix are the columns of a linear regression. A vocabulary is counted on training rows only;
embedding and fitting are the models' business.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.schema import FeatureKind
from raymeta.errors import SchemaError

MIN_ROWS = 3
"""A value of fewer training rows says too little to be told from an unknown one."""

MAX_SLOTS = 16
"""Values of one multi-valued field that count; a longer list is cut."""

_LISTS = (FeatureKind.MULTI_CATEGORICAL, FeatureKind.TEXT)

_TYPES = {
    FeatureKind.CATEGORICAL: pa.string(),
    FeatureKind.MULTI_CATEGORICAL: pa.list_(pa.string()),
    FeatureKind.TEXT: pa.string(),
    FeatureKind.NUMERIC: pa.float64(),
}

_VOCAB_SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("kind", pa.string()),
        ("slots", pa.int32()),
        ("value", pa.string()),
        *((name, pa.float64()) for name in ("mean", "std", "low", "high")),
    ]
)


@dataclass(frozen=True)
class FeatureRow:
    """One record, encoded: `index` int64 and `weight` float32, both `[W]`."""

    index: NDArray[np.int64]
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class EncodedFeatures:
    """Encoded records.

    Attributes:
        index: vocabulary rows, int64 `[N, W]`.
        weight: float32 `[N, W]`; 0 in a slot that is not used.
        unseen: column -> how many values were given that the vocabulary lacks.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    unseen: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> FeatureRow:
        return FeatureRow(self.index[row], self.weight[row])

    def take(self, rows: NDArray[np.int64]) -> "EncodedFeatures":
        """The records at `rows`, in that order."""
        return EncodedFeatures(self.index[rows], self.weight[rows], self.unseen)

    def matrix(self, num_rows: int) -> sparse.csr_array:
        """The same as CSR `[N, num_rows]` float32; slots on one row are summed."""
        width = self.index.shape[1]
        offsets = np.arange(len(self) + 1) * width
        entries = (self.weight.ravel(), self.index.ravel(), offsets)
        # copied, since summing duplicates works in place
        matrix = sparse.csr_array(entries, shape=(len(self), num_rows), copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix


@dataclass(frozen=True)
class Field:
    """One column's part of a vocabulary.

    Attributes:
        slots: how many slots a record has for it.
        values: known values in row order, after the row for unknown ones; none if numeric.
        mean, std, low, high: of the training numbers; a number beyond them counts as the end of
            the range, so that a misplaced decimal point cannot swamp every other field.
    """

    column: str
    kind: FeatureKind
    slots: int = 1
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 0.0

    @property
    def num_rows(self) -> int:
        return 2 if self.kind == FeatureKind.NUMERIC else 1 + len(self.values)


@dataclass(frozen=True)
class FeatureVocab:
    """What a model reads of a table, field after field."""

    fields: tuple[Field, ...]

    @classmethod
    def count(
        cls, table: pa.Table, kinds: Mapping[str, str], *, min_rows: int = MIN_ROWS
    ) -> "FeatureVocab":
        """The vocabulary of a training table.

        Args:
            table: items or users, a row each.
            kinds: column -> kind; `ignore` and columns that the table lacks are passed over, and so
                is a column without any value worth keeping.
            min_rows: a value of fewer rows counts as unknown.
        """
        fields = []
        for column in sorted(kinds):
            kind = FeatureKind(kinds[column])
            if kind == FeatureKind.IGNORE or column not in table.column_names:
                continue
            values = _read(table, column, kind)
            if kind == FeatureKind.NUMERIC:
                fields += _count_numbers(column, values, min_rows)
            else:
                fields += _count_values(column, kind, values, min_rows)
        return cls(tuple(fields))

    @cached_property
    def first_row(self) -> NDArray[np.int64]:
        """The row for "unknown" of each field, `[F]`."""
        return np.cumsum([0, *(field.num_rows for field in self.fields)])[:-1].astype(np.int64)

    @cached_property
    def field_of_slot(self) -> tuple[int, ...]:
        """Which field each of the W slots belongs to."""
        return tuple(f for f, field in enumerate(self.fields) for _ in range(field.slots))

    @property
    def num_rows(self) -> int:
        """V, rows of all fields together."""
        return sum(field.num_rows for field in self.fields)

    def encode(self, table: pa.Table) -> EncodedFeatures:
        """Encodes records `[N]`; missing and unseen values become their field's unknown row.

        Raises:
            SchemaError: a column is missing or holds another kind of value.
        """
        index = np.zeros((table.num_rows, len(self.field_of_slot)), np.int64)
        weight = np.zeros(index.shape, np.float32)
        unseen: dict[str, int] = {}
        slot = 0
        for field, first in zip(self.fields, self.first_row, strict=True):
            values = _read(table, field.column, field.kind)
            mine = slice(slot, slot + field.slots)
            encode = _encode_numbers if field.kind == FeatureKind.NUMERIC else _encode_values
            index[:, mine], weight[:, mine], unseen[field.column] = encode(field, values)
            index[:, mine] += first
            slot += field.slots
        return EncodedFeatures(index, weight, unseen)

    @cached_property
    def unknown(self) -> FeatureRow:
        """A record of which nothing is known."""
        return self.encode(self.table([{}]))[0]

    def table(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Records given by name, as a table that `encode` reads; a name left out is missing.

        Raises:
            SchemaError: a name is not a column of the vocabulary, or a value is of another kind.
        """
        kinds = {field.column: field.kind for field in self.fields}
        extra = sorted({name for record in records for name in record} - kinds.keys())
        if extra:
            raise SchemaError(
                f"There is no feature {extra[0]!r}.",
                remedy=f"The model reads: {', '.join(kinds) or 'none'}.",
            )
        columns = {
            name: _array([record.get(name) for record in records], name, kind)
            for name, kind in kinds.items()
        }
        # a table without columns has no rows either, so the count travels in one of its own
        return pa.table({"row": pa.array(range(len(records)), pa.int64()), **columns})

    def to_table(self) -> pa.Table:
        """The vocabulary as a table, a row a vocabulary row."""
        rows = [
            {**vars(field), "kind": field.kind.value, "value": value}
            for field in self.fields
            for value in _row_values(field)
        ]
        return pa.Table.from_pylist(rows, _VOCAB_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table) -> "FeatureVocab":
        """What `to_table` wrote."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            grouped.setdefault(row["column"], []).append(row)
        fields = []
        for rows in grouped.values():
            facts = {**rows[0], "kind": FeatureKind(rows[0]["kind"])}
            del facts["value"]
            fields.append(Field(**facts, values=tuple(r["value"] for r in rows[1:] if r["value"])))
        return cls(tuple(fields))


NO_FEATURES = FeatureVocab(())
"""The vocabulary of a table without features."""


def _row_values(field: Field) -> list[str | None]:
    if field.kind == FeatureKind.NUMERIC:
        return [None, None]
    return [None, *field.values]


def _array(values: list[Any], column: str, kind: FeatureKind) -> pa.Array:
    try:
        if kind == FeatureKind.MULTI_CATEGORICAL and any(isinstance(v, str) for v in values):
            raise pa.ArrowTypeError("Arrow would read a text as the list of its letters")
        return pa.array(values, _TYPES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        wanted = {"numeric": "a number", "multi_categorical": "a list of texts"}.get(kind, "a text")
        raise SchemaError(
            f"Feature {column!r} wants {wanted}; it was given {values!r:.80}.",
            remedy="Leave it out where it is not known.",
        ) from None


def _read(table: pa.Table, column: str, kind: FeatureKind) -> pa.Array:
    """A column in its kind's type; a text as the list of its words."""
    if column not in table.column_names:
        raise SchemaError(
            f"The table lacks the column {column!r} that the model reads.",
            remedy="Give it, with nulls where it is not known.",
        )
    values = table.column(column)
    try:
        typed = pa.chunked_array(values.cast(_TYPES[kind])).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(
            f"The column {column!r} is {values.type}, which cannot be read as {kind.value}.",
            remedy="Give it as the training data had it.",
        ) from None
    if kind == FeatureKind.TEXT:
        return pc.split_pattern_regex(pc.utf8_lower(typed), r"[^\pL\pN]+")
    return typed


def _flat(values: pa.Array, kind: FeatureKind) -> tuple[NDArray[np.int64], pa.Array]:
    """The row and text of every value there is, repeats in a row dropped."""
    if kind in _LISTS:
        rows = pc.list_parent_indices(values).to_numpy().astype(np.int64)
        texts = pc.list_flatten(values)
    else:
        rows, texts = np.arange(len(values), dtype=np.int64), values
    present = pc.fill_null(pc.greater(pc.utf8_length(texts), 0), False)
    present = present.to_numpy(zero_copy_only=False)
    rows, texts = rows[present], texts.filter(pa.array(present))
    codes = texts.dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first = np.unique(rows * (codes.max(initial=0) + 1) + codes, return_index=True)
    first.sort()
    return rows[first], texts.take(pa.array(first))


def _count_values(column: str, kind: FeatureKind, values: pa.Array, min_rows: int) -> list[Field]:
    rows, texts = _flat(values, kind)
    counts = Counter(texts.to_pylist())
    kept = tuple(sorted(value for value, n in counts.items() if n >= min_rows))
    if not kept:
        return []
    known = pc.is_in(texts, value_set=pa.array(kept)).to_numpy(zero_copy_only=False)
    longest = int(np.bincount(rows[known]).max())
    return [Field(column, kind, slots=min(longest, MAX_SLOTS), values=kept)]


def _encode_values(
    field: Field, values: pa.Array
) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    rows, texts = _flat(values, field.kind)
    place = pc.index_in(texts, value_set=pa.array(field.values, pa.string()))
    known = place.is_valid().to_numpy(zero_copy_only=False)
    rows, value = rows[known], place.drop_null().to_numpy().astype(np.int64)
    index = np.zeros((len(values), field.slots), np.int64)
    weight = np.zeros(index.shape, np.float32)
    count = np.bincount(rows, minlength=len(values))
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    fits = slot < field.slots
    rows, slot, value = rows[fits], slot[fits], value[fits]
    index[rows, slot] = 1 + value
    weight[rows, slot] = 1.0 / np.minimum(count, field.slots)[rows]
    weight[count == 0, 0] = 1.0
    return index, weight, int((~known).sum())


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _count_numbers(column: str, values: pa.Array, min_rows: int) -> list[Field]:
    numbers = _numbers(values)
    known = numbers[np.isfinite(numbers)]
    if len(known) < min_rows:
        return []
    std = float(known.std())
    return [
        Field(
            column,
            FeatureKind.NUMERIC,
            mean=float(known.mean()),
            std=std if std > 0 else 1.0,
            low=float(known.min()),
            high=float(known.max()),
        )
    ]


def _encode_numbers(
    field: Field, values: pa.Array
) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    numbers = _numbers(values)
    known = np.isfinite(numbers)
    standard = (np.clip(numbers, field.low, field.high) - field.mean) / field.std
    weight = np.where(known, standard, 1.0).astype(np.float32)
    outside = known & ((numbers < field.low) | (numbers > field.high))
    return known.astype(np.int64)[:, None], weight[:, None], int(outside.sum())
