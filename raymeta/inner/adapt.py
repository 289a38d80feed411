"""The inner loop itself: gradient steps on one task's support, and its lift over many tasks.

`adapt_one` is the definition. `over_tasks` lifts it: each task gets the weights that it would get
alone, and a lone task runs without `vmap`, which costs several times less for one user (tests hold
both forms to each other).
"""

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from raymeta.inner.rules import UpdateRule
from raymeta.types import Examples, Params

ResultT = TypeVar("ResultT", Tensor, Params)

InnerLoss = Callable[[Params, Examples], Tensor]
"""(fast weights of one task, its support) -> scalar inner objective."""

GradientMode = Literal["unrolled", "first_order"]
"""How the outer gradient passes through an inner step: through the inner gradient as well
(`unrolled`: MAML, eq. 4 of Finn et al. 2017), or with it held constant (`first_order`: their
section 5.2, FOMAML)."""


def adapt_one(
    loss: InnerLoss,
    fast: Params,
    support: Examples,
    *,
    rule: UpdateRule,
    rule_params: Params,
    num_steps: int,
    mode: GradientMode = "unrolled",
) -> Params:
    """`num_steps` updates of one task's fast weights on its support."""
    for _ in range(num_steps):
        gradients = torch.func.grad(loss)(fast, support)
        if mode == "first_order":
            gradients = {name: g.detach() for name, g in gradients.items()}
        fast = rule.update(rule_params, fast, gradients)
    return fast


def over_tasks(function: Callable[..., ResultT], *arguments: Examples | Tensor) -> ResultT:
    """`function` of one task, applied to arguments with a leading `[T]`."""
    leaf = arguments[0]
    first = leaf if isinstance(leaf, Tensor) else next(iter(leaf.values()))
    if first.shape[0] == 1:
        result = function(*(_squeeze(a) for a in arguments))
        if isinstance(result, Tensor):
            return result.unsqueeze(0)
        return {name: value.unsqueeze(0) for name, value in result.items()}
    return torch.func.vmap(function)(*arguments)


def _squeeze(argument: Examples | Tensor) -> Examples | Tensor:
    if isinstance(argument, Tensor):
        return argument[0]
    return {name: value[0] for name, value in argument.items()}
