"""The batches of pretraining: users at one support size, of like length, in an order of the epoch.

Every training user is a task at each support size that leaves something to find. Tasks of a batch
have supports of like length, so that little is padded; which batch a step sees is a function of
seed and step.

Shapes: T users of a batch, S support rows, Q later items, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.config.data import DataConfig
from raymeta.data.episodes import cut, num_units
from raymeta.data.events import (
    History,
    pad_items,
    support_from_events,
    with_own_items,
)
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import DataError
from raymeta.seeding import numpy_generator
from raymeta.types import Examples

MAX_KEPT_SCORES = 2**29
"""Scores of the base are kept for the next epoch, in half precision, up to so many (1 GB)."""


@dataclass(frozen=True)
class PretrainingBatch:
    """Supports, the later items, and what the base says of all items, `[T, I]`, if it does."""

    support: Examples
    query: Examples
    base: Tensor | None

    def to(self, device: torch.device) -> "PretrainingBatch":
        """The same on a device."""
        support, query = (
            {name: value.to(device) for name, value in part.items()}
            for part in (self.support, self.query)
        )
        return PretrainingBatch(support, query, None if self.base is None else self.base.to(device))


class PretrainingTasks:
    """This worker's tasks.

    Args:
        users: this worker's training users.
        config: unit and support sizes.
        split: what adapting sees of a history, and what makes an item relevant.
        base: supports of training users -> scores of all items, without the users' own part.
        users_per_batch: T at most.
        seed: of the run and the worker.

    Raises:
        DataError: no user has anything to find after any support size.
    """

    def __init__(
        self,
        users: UserTasks,
        config: DataConfig,
        *,
        split: TaskSplit,
        base: Callable[[Examples], Tensor] | None,
        users_per_batch: int,
        seed: int,
    ) -> None:
        self._users, self._unit, self._split = users, config.unit, split
        self._base, self._seed = base, seed
        self._batches: list[tuple[int, NDArray[np.int64]]] = []
        for size in config.support_sizes:
            counted = [row for row in range(len(users)) if self._counts(row, size)]
            counted.sort(key=lambda row: len(self._cut(row, size)[0]))
            rows = np.array(counted, np.int64)
            parts = [rows[i : i + users_per_batch] for i in range(0, len(rows), users_per_batch)]
            self._batches += [(size, part) for part in parts]
        if not self._batches:
            raise DataError(
                f"No training user has an item to find after any of {config.support_sizes}.",
                remedy="Lower data.support_sizes, or train on more users.",
            )
        self._kept: dict[int, Tensor] = {}
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._batches)

    def batch(self, step: int) -> PretrainingBatch:
        """The tasks of one step."""
        epoch, place = divmod(step, len(self._batches))
        if self._order is None or self._order[0] != epoch:
            generator = numpy_generator(self._seed, "epoch", epoch)
            self._order = (epoch, generator.permutation(len(self._batches)))
        number = int(self._order[1][place])
        size, rows = self._batches[number]
        supports, queries = [], []
        for row in rows.tolist():
            support, query = self._cut(row, size)
            supports.append(support)
            queries.append(query)
        rows_seen = support_from_events(supports, self._split.view)
        scores = self._scores(number, rows_seen, rows)
        return PretrainingBatch(rows_seen, pad_items(queries), scores)

    def _scores(self, number: int, support: Examples, rows: NDArray[np.int64]) -> Tensor | None:
        """What the base says of the users at `rows`, known by their support."""
        if self._base is None:
            return None
        if number in self._kept:
            return self._kept[number].float()
        positive, view = self._split.positive_types, self._split.view
        own = with_own_items(support, self._users.take(rows), positive, view)
        scores = self._base(own).half()
        if scores.numel() * (len(self._kept) + 1) <= MAX_KEPT_SCORES:
            self._kept[number] = scores
        return scores.float()  # rounded even where it is not kept: an epoch is like another

    def _cut(self, row: int, size: int) -> tuple[History, NDArray[np.int64]]:
        return cut(
            self._users[row],
            size,
            unit=self._unit,
            positive_types=self._split.positive_types,
        )

    def _counts(self, row: int, size: int) -> bool:
        positive = self._split.positive_types
        if num_units(self._users[row], unit=self._unit, positive_types=positive) <= size:
            return False
        return len(self._cut(row, size)[1]) > 0
