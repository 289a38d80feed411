"""raymeta: the `maml` preset on the module as it is; the execution form is the library's choice."""

from collections.abc import Callable

import networks
import torch
from torch import Tensor
from torch.nn import functional
from works import Arrays, Work

from raymeta.algorithms.presets import maml
from raymeta.models.module import ModuleModel
from raymeta.types import TaskBatch


def squared_error(out: Tensor, y: Tensor) -> Tensor:
    """`networks.loss` by row."""
    return (out - y) ** 2


def rank_loss(out: Tensor, y: Tensor) -> Tensor:
    """`networks.loss` of sequences: a row is a sequence."""
    losses = functional.softplus(-out[..., 0]) + functional.softplus(out[..., 1])
    return (y * losses).sum(-1) / y.sum(-1)


def learner_and_batch(work: Work, values: Arrays, batch: Arrays):
    """The algorithm, its meta-parameters and the tasks."""
    net = networks.network(work, values)
    row_loss = rank_loss if work.kind == "seq" else squared_error
    head = "slow.head.linear" if work.fast == "lora" else None
    model = ModuleModel(net, row_loss, head=head, adaptable=["fast.*"])
    algorithm = maml(model, inner_lr=work.inner_lr, num_inner_steps=work.steps)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    if work.kind == "seq":
        rows = {name: value.unsqueeze(1) for name, value in rows.items()}
    parts = []
    for part in ("support", "query"):
        x, y = rows[f"{part}_x"], rows[f"{part}_y"]
        parts.append({"x": x, "y": y, "mask": torch.ones(y.shape[:2], dtype=torch.bool)})
    return algorithm, algorithm.init(torch.Generator()), TaskBatch(*parts)


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], dict[str, Tensor]]:
    algorithm, params, tasks = learner_and_batch(work, values, batch)

    def step() -> dict[str, Tensor]:
        found = algorithm.meta_gradient(params, tasks).gradients
        return {name: g / tasks.num_tasks for name, g in found.items()}

    return step
