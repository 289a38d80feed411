"""Which tasks an outer step sees: a function of seed, worker and step, so that a run can resume."""

import numpy as np
from numpy.typing import NDArray

from raymeta.config.experiment import DataConfig
from raymeta.data.episodes import cut, latest_values, num_units
from raymeta.data.events import (
    SupportView,
    distinct_items,
    pad_items,
    support_from_events,
    with_own_items,
)
from raymeta.data.task_dataset import UserTasks
from raymeta.seeding import numpy_generator
from raymeta.types import TaskBatch


class EpisodeSampler:
    """Draws a batch of users and cuts each at a support size drawn for it.

    Args:
        users: this worker's users.
        config: unit and support sizes.
        view: what adapting sees of a history.
        seed: of the run and the worker.
    """

    def __init__(
        self,
        users: UserTasks,
        config: DataConfig,
        *,
        view: SupportView,
        positive_types: tuple[int, ...],
        tasks_per_batch: int,
        seed: int,
    ) -> None:
        self._users, self._config, self._view = users, config, view
        self._positive, self._tasks, self._seed = positive_types, tasks_per_batch, seed
        self._kept: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int) -> TaskBatch:
        """The tasks of one outer step; users come once an epoch."""
        supports, queries, values, own = [], [], [], []
        for position in range(step * self._tasks, (step + 1) * self._tasks):
            epoch, place = divmod(position, len(self._users))
            history = self._users[int(self._order(epoch)[place])]
            units = num_units(history, unit=self._config.unit, positive_types=self._positive)
            sizes = [s for s in self._config.support_sizes if s < units] or [0]
            draw = numpy_generator(self._seed, "size", position)
            support, query = cut(
                history,
                int(draw.choice(sizes)),
                unit=self._config.unit,
                positive_types=self._positive,
            )
            supports.append(support)
            queries.append(query)
            values.append(latest_values(history, query))
            own.append(distinct_items(history, self._positive))
        rows = with_own_items(support_from_events(supports, self._view), own)
        return TaskBatch(rows, pad_items(queries, values))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The users of an epoch; kept, since a permutation of all users for each task adds up."""
        if self._kept is None or self._kept[0] != epoch:
            generator = numpy_generator(self._seed, "epoch", epoch)
            self._kept = (epoch, generator.permutation(len(self._users)))
        return self._kept[1]
