"""Which tasks an outer step sees: a function of seed, worker and step, so that a run can resume."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.task_dataset import UserTasks
from raymeta.seeding import numpy_generator
from raymeta.types import TaskBatch


class MakesTasks(Protocol):
    """The part of a scenario that sampling needs."""

    def num_units(self, history: History) -> int: ...

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch: ...


class EpisodeSampler:
    """Draws a batch of users and cuts each at a support size drawn for it.

    Args:
        users: this worker's users.
        scenario: how a history becomes a task.
        support_sizes: what is drawn from, as far as a user's history allows.
        tasks_per_batch: users a batch.
        seed: of the run and the worker.
    """

    def __init__(
        self,
        users: UserTasks,
        scenario: MakesTasks,
        *,
        support_sizes: Sequence[int],
        tasks_per_batch: int,
        seed: int,
    ) -> None:
        self._users, self._scenario, self._sizes = users, scenario, support_sizes
        self._tasks, self._seed = tasks_per_batch, seed
        self._kept: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int) -> TaskBatch:
        """The tasks of one outer step; users come once an epoch."""
        histories, drawn = [], []
        for position in range(step * self._tasks, (step + 1) * self._tasks):
            epoch, place = divmod(position, len(self._users))
            history = self._users[int(self._order(epoch)[place])]
            units = self._scenario.num_units(history)
            sizes = [s for s in self._sizes if s < units] or [0]
            draw = numpy_generator(self._seed, "size", position)
            histories.append(history)
            drawn.append(int(draw.choice(sizes)))
        return self._scenario.task_batch(histories, drawn)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The users of an epoch; kept, since a permutation of all users for each task adds up."""
        if self._kept is None or self._kept[0] != epoch:
            generator = numpy_generator(self._seed, "epoch", epoch)
            self._kept = (epoch, generator.permutation(len(self._users)))
        return self._kept[1]
