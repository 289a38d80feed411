"""How a pretrained Transformer stands on validation users, and how loudly it should speak.

The base is scored once, as it is served; a validation adds the Transformer's scores at each of a
few gates and takes the best by the mean over support sizes. That is the gate which meta-learning
starts from.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.events import support_from_events
from raymeta.data.task_split import TaskSplit
from raymeta.errors import RaymetaError
from raymeta.evaluation.adapted import AdaptedScorer
from raymeta.evaluation.protocol import cut_tasks
from raymeta.evaluation.validation import ValidationBlock
from raymeta.models.factorization import TYPICAL_ROWS
from raymeta.models.next_items import NextItems
from raymeta.seeding import torch_generator
from raymeta.train.loop import Worker
from raymeta.train.outer import sums
from raymeta.types import Examples

Gate = tuple[float, float]
"""log_gate and gate_by_size, see `models.sequence`."""

GATES: tuple[Gate, ...] = tuple(
    (math.log(loud), by_size)
    for loud, by_size in product((0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5), (0.0, 0.3, 0.6))
)
"""The gates that are tried, in units of the base's scores."""

USERS_AT_ONCE = 32
"""Users that go through the Transformer together."""


@dataclass(frozen=True)
class Choice:
    """The best gate and its curve: support size -> mean nDCG@10."""

    gate: Gate
    curve: dict[int, float]

    @property
    def score(self) -> float:
        return sum(self.curve.values()) / len(self.curve)


class GateValidation:
    """Validation of a Transformer beside a base.

    Args:
        base: what is served of it gives the scores that are added to.
        worker: validation users are divided among the workers.
        device: where the Transformer is.
    """

    def __init__(
        self,
        experiment: ExperimentConfig,
        split: TaskSplit,
        base: GradientBased,
        worker: Worker,
        device: torch.device,
    ) -> None:
        self._worker, self._device = worker, device
        self._sizes = experiment.data.support_sizes
        self._blocks: dict[int, tuple[ValidationBlock, list[Examples], Tensor]] = {}
        served, params = base.served(base.init(torch_generator(0, "init")))
        scorer = AdaptedScorer(served, params, view=split.view)
        mine = split.validation.shard(worker.rank, worker.world_size)
        for size in self._sizes:
            try:
                (tasks,) = cut_tasks(
                    mine,
                    [size],
                    unit=experiment.data.unit,
                    positive_types=split.positive_types,
                )
            except RaymetaError:
                continue  # no user of this worker counts at this size; the others' may
            block = ValidationBlock.of(tasks, len(split.catalogue))
            histories = block.tasks.supports
            parts = [
                support_from_events(histories[start : start + USERS_AT_ONCE], split.view)
                for start in range(0, len(histories), USERS_AT_ONCE)
            ]
            self._blocks[size] = (block, parts, block.scores(scorer))

    def __call__(self, network: NextItems) -> Choice:
        """The best gate for the network as it is; the same on all workers."""
        with torch.no_grad():
            vectors = network.item_vectors()
            scale = float(network.log_scale.exp())
            table = {size: self._by_gate(size, network, vectors / scale) for size in self._blocks}
        flat = [
            value for size in self._sizes for value in table.get(size, [0.0] * (len(GATES) + 1))
        ]
        summed = torch.tensor(sums(flat, self._worker.all_reduce)).view(len(self._sizes), -1)
        counted = summed[:, -1] > 0
        curves = summed[:, :-1] / summed[:, -1:].clamp(min=1.0)
        best = int(curves[counted].mean(0).argmax())
        curve = {
            size: float(curves[row, best])
            for row, size in enumerate(self._sizes)
            if bool(counted[row])
        }
        return Choice(GATES[best], curve)

    def _by_gate(self, size: int, network: NextItems, vectors: Tensor) -> list[float]:
        """Summed nDCG@10 by gate, then the number of users."""
        block, parts, base = self._blocks[size]
        num_users = len(block.tasks)
        if size == 0:  # the gate of a user without events is closed
            return [block.mean_ndcg(base) * num_users] * len(GATES) + [float(num_users)]
        found, rows = [], []
        for part in parts:
            moved = {name: value.to(self._device) for name, value in part.items()}
            found.append((network(moved) @ vectors.T).cpu())
            rows.append(part["mask"].sum(1))
        scores = torch.cat(found)
        log_size = (torch.cat(rows).clamp(min=1) / TYPICAL_ROWS).log()
        values = []
        for log_gate, by_size in GATES:
            gate = torch.exp(log_gate + by_size * log_size)[:, None]
            values.append(block.mean_ndcg(base + gate * scores) * num_users)
        return [*values, float(num_users)]
