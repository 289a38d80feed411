"""The inner loop itself: gradient steps on one task's support, and its lift over many tasks.

`iterates` is the definition. `over_tasks` lifts what is written for one task: each task gets what
it would get alone, and a lone task runs without `vmap`, which costs several times less for one user
(tests hold both forms to each other).
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from raymeta.inner.rules import UpdateRule
from raymeta.types import Examples, Params

ResultT = TypeVar("ResultT")

TaskLoss = Callable[[Params], Tensor]
"""Fast weights of one task -> a scalar."""


def iterates(
    loss: TaskLoss,
    start: Params,
    *,
    rule: UpdateRule,
    learned: Params,
    num_steps: int,
    first_order: bool = False,
) -> Iterator[Params]:
    """The fast weights before the first step, and after each of `num_steps` steps.

    Args:
        loss: the inner objective of one task.
        start: fast weights before the first step.
        rule: how a step moves them.
        learned: the rule's own meta-parameters.
        num_steps: how many steps.
        first_order: hold the inner gradients constant (Finn et al. 2017, section 5.2).
    """
    fast, memory = start, rule.memory(start)
    yield fast
    for step in range(num_steps):
        gradients = torch.func.grad(loss)(fast)
        if first_order:
            gradients = {name: g.detach() for name, g in gradients.items()}
        fast, memory = rule.update(learned, memory, fast, gradients, step)
        yield fast


def over_tasks(function: Callable[..., ResultT], *arguments: Examples | Tensor) -> ResultT:
    """`function` of one task, applied to arguments with a leading `[T]`.

    Returns:
        What `function` returns (tensors, or dictionaries and tuples of them), with a leading `[T]`.
    """
    leaf = arguments[0]
    first = leaf if isinstance(leaf, Tensor) else next(iter(leaf.values()))
    if first.shape[0] != 1:
        return torch.func.vmap(function)(*arguments)
    alone = function(*(_each(argument, _first) for argument in arguments))
    return cast(ResultT, _each(alone, _as_batch))


def _each(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`function` of every tensor in a tensor, a dictionary or a tuple of them."""
    if isinstance(tree, dict):
        return {name: _each(value, function) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_each(value, function) for value in tree)
    return function(tree)


def _first(tensor: Tensor) -> Tensor:
    return tensor[0]


def _as_batch(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(0)
