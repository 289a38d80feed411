"""The outer step: meta-gradients of all workers in one flat buffer, then one Adam update."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raymeta.config.experiment import TrainingConfig
from raymeta.types import MetaGradient, Params

AllReduce = Callable[[Tensor], None]
"""Sums a tensor over workers, in place; with one worker it does nothing."""


def alone(_buffer: Tensor) -> None:
    """The all-reduce of a single worker."""


def mean_over_tasks(local: MetaGradient, all_reduce: AllReduce) -> tuple[Params, float]:
    """The mean meta-gradient and query loss over the tasks of all workers.

    Sums and the number of tasks travel in one buffer, so that workers with unequal numbers of
    tasks give what one worker with all the tasks gives.
    """
    names = sorted(local.gradients)
    tail = local.loss_sum.new_tensor([float(local.loss_sum), float(local.num_tasks)])
    flat = torch.cat([*(local.gradients[n].reshape(-1) for n in names), tail])
    all_reduce(flat)
    loss_sum, num_tasks = float(flat[-2]), max(1.0, float(flat[-1]))
    sizes = [local.gradients[n].numel() for n in names]
    parts = torch.split(flat[:-2] / num_tasks, sizes)
    mean = {n: p.view_as(local.gradients[n]) for n, p in zip(names, parts, strict=True)}
    return mean, loss_sum / num_tasks


class OuterOptimizer:
    """Adam over the meta-parameters, with gradients clipped to a norm.

    Args:
        params: the meta-parameters; updated in place.
        config: rate, decay and clipping norm.
    """

    def __init__(self, params: Params, config: TrainingConfig) -> None:
        self._names = sorted(params)
        self._params = [params[n] for n in self._names]
        self._max_norm = config.max_gradient_norm
        self._adam = torch.optim.AdamW(
            self._params, lr=config.outer_lr, weight_decay=config.weight_decay
        )

    def step(self, gradients: Params) -> None:
        """One update along the mean meta-gradient."""
        for name, param in zip(self._names, self._params, strict=True):
            param.grad = gradients[name]
        torch.nn.utils.clip_grad_norm_(self._params, self._max_norm)
        self._adam.step()

    def state(self) -> Params:
        """The optimiser's state by flat name, for a checkpoint."""
        return {
            f"{name}/{key}": value
            for name, param in zip(self._names, self._params, strict=True)
            for key, value in self._adam.state[param].items()
        }

    def load(self, state: Params) -> None:
        """What `state` gave."""
        for name, param in zip(self._names, self._params, strict=True):
            mine = {
                key.rpartition("/")[2]: value
                for key, value in state.items()
                if key.rpartition("/")[0] == name
            }
            if mine:
                self._adam.state[param] = mine


def sums(values: Sequence[float], all_reduce: AllReduce) -> list[float]:
    """Numbers summed over workers."""
    buffer = torch.tensor(values, dtype=torch.float64)
    all_reduce(buffer)
    return [float(v) for v in buffer]
