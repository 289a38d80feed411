"""What a source hands to `prepare`: units of raw events that can be read apart, and the tables.

A source knows one kind of log and nothing about how rows are cleaned, partitioned or stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raymeta.data.cleaning import BLOCK_ROWS, CleaningRules, RawBlock
from raymeta.data.schema import FeatureKind


class EventUnit(Protocol):
    """A part of a log that can be read on its own, in any process: it is pickled to get there.

    Attributes:
        name: the file, for messages and for `rejected.parquet`.
        num_rows_hint: about how many rows it has; sizes the partitions.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_rows_hint(self) -> int: ...

    def blocks(self) -> Iterator[RawBlock]:
        """The rows, about `BLOCK_ROWS` at a time."""
        ...


@dataclass(frozen=True)
class FeatureTable:
    """Items or users, cleaned: an `item_id` or `user_id` text column, unique, and features.

    Attributes:
        table: `[rows]`, the id first.
        kinds: what each other column is.
        rejected: rows left out, in the layout of `cleaning.REJECTED_SCHEMA`.
    """

    table: pa.Table
    kinds: Mapping[str, FeatureKind]
    rejected: pa.Table | None = None


@dataclass(frozen=True)
class Log:
    """A log ready to be prepared.

    Attributes:
        name: of the source, e.g. `complete-journey`.
        units: the events, in reading order.
        rules: how to clean them.
        items: the item table, or None where the log has none.
        users: the user table, or None where the log has none.
        extras: further tables to keep beside, by file name without suffix.
        origin: facts on where the data come from, for the manifest.
        notes: sentences that must stand beside any result on these data.
    """

    name: str
    units: Sequence[EventUnit]
    rules: CleaningRules
    items: FeatureTable | None = None
    users: FeatureTable | None = None
    extras: Mapping[str, pa.Table] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Source(Protocol):
    """One kind of log."""

    def open(self) -> Log:
        """Finds the files and reads the tables; a `DataError` says what is missing."""
        ...


@dataclass(frozen=True)
class TableUnit:
    """An `EventUnit` over a table that is in memory, for logs that fit."""

    name: str
    table: pa.Table
    line: NDArray[np.int64]

    @property
    def num_rows_hint(self) -> int:
        return int(self.table.num_rows)

    def blocks(self) -> Iterator[RawBlock]:
        for start in range(0, self.table.num_rows, BLOCK_ROWS):
            yield RawBlock(
                table=self.table.slice(start, BLOCK_ROWS),
                line=self.line[start : start + BLOCK_ROWS],
            )
