"""raymeta: the `maml` preset on the module as it is; the execution form is the library's choice."""

from collections.abc import Callable

import networks
import torch
from torch import Tensor
from torch.nn import functional
from works import Arrays, Work

from raymeta.algorithms.presets import maml
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel
from raymeta.types import TaskBatch


def rank_loss(out: Tensor, _y: Tensor) -> Tensor:
    """`networks.loss` of sequences for one row; which rows count is in the mask."""
    return functional.softplus(-out[..., 0]) + functional.softplus(out[..., 1])


def learner_and_batch(work: Work, values: Arrays, batch: Arrays):
    """The algorithm, its meta-parameters and the tasks."""
    net = networks.network(work, values)
    row_loss = rank_loss if work.kind == "seq" else squared_error
    model = ModuleModel(net, row_loss, adaptable=["fast.*"])
    algorithm = maml(model, inner_lr=work.inner_lr, num_inner_steps=work.steps)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    parts = []
    for part in ("support", "query"):
        y = rows[f"{part}_y"]
        mask = y > 0 if work.kind == "seq" else torch.ones_like(y, dtype=torch.bool)
        parts.append({"x": rows[f"{part}_x"], "y": y, "mask": mask})
    return algorithm, algorithm.init(torch.Generator()), TaskBatch(*parts)


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], dict[str, Tensor]]:
    algorithm, params, tasks = learner_and_batch(work, values, batch)

    def step() -> dict[str, Tensor]:
        found = algorithm.meta_gradient(params, tasks).gradients
        return {name: g / tasks.num_tasks for name, g in found.items()}

    return step
