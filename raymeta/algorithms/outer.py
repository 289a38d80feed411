"""The outer loop in one process, for any learner and any iterable of tasks.

No files, no cluster, no settings: a training run with checkpoints, validation and several workers
is `raymeta.train`, around the same `meta_gradient`.
"""

import math
from collections.abc import Callable, Iterable

import torch

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.errors import AdaptationError, ConfigError
from raymeta.inner.schedules import Schedule, constant
from raymeta.seeding import torch_generator
from raymeta.types import Params, TaskBatch


def meta_train(
    algorithm: MetaAlgorithm,
    batches: Iterable[TaskBatch],
    *,
    num_steps: int,
    outer_lr: float = 1e-3,
    schedule: Schedule = constant,
    max_gradient_norm: float = 10.0,
    params: Params | None = None,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> Params:
    """Meta-parameters after `num_steps` of Adam along the mean meta-gradient.

    Args:
        algorithm: the learner.
        batches: the tasks of each outer step; may be endless.
        num_steps: outer steps.
        outer_lr: Adam's step size.
        schedule: factor on it by outer step, such as `raymeta.inner.schedules.cosine`.
        max_gradient_norm: the mean meta-gradient is scaled down to this norm.
        params: where to begin; `algorithm.init` if not given. Left as they are.
        seed: of `algorithm.init`.
        report: called after each outer step with its number and mean query loss.

    Raises:
        ConfigError: the batches ended before `num_steps`.
        AdaptationError: the query loss is not finite.

    Example:
        >>> from raymeta import maml, meta_train, ModuleModel
        >>> learner = maml(ModuleModel(net, squared_error), inner_lr=0.01, num_inner_steps=5)
        >>> params = meta_train(learner, batches, num_steps=1000)
        >>> state = learner.adapt(params, support)
    """
    begin = algorithm.init(torch_generator(seed, "init")) if params is None else params
    learned = {name: p.detach().clone() for name, p in begin.items()}
    # fused: one kernel for all tensors, several times faster than one call a tensor
    adam = torch.optim.Adam(list(learned.values()), lr=outer_lr, fused=True)
    source = iter(batches)
    for step in range(num_steps):
        batch = next(source, None)
        if batch is None:
            raise ConfigError(
                f"The batches of tasks ended after {step} of {num_steps} outer steps.",
                remedy="Give an endless iterator of batches, or ask for fewer steps.",
            )
        found = algorithm.meta_gradient(learned, batch, outer_step=step)
        loss = float(found.loss_sum) / found.num_tasks
        if not math.isfinite(loss):
            raise AdaptationError(
                f"The query loss is {loss} at outer step {step}.",
                remedy="Lower the inner or the outer rate, or clip inner gradients.",
            )
        for name, value in learned.items():
            value.grad = found.gradients[name] / found.num_tasks
        torch.nn.utils.clip_grad_norm_(learned.values(), max_gradient_norm)
        for group in adam.param_groups:
            group["lr"] = outer_lr * schedule(step)
        adam.step()
        if report is not None:
            report(step, loss)
    return {name: value.detach() for name, value in learned.items()}
