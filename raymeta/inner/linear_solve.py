"""Solving A x = b where A is known only through its products: the conjugate-gradient method.

Written for one task and safe to lift over a batch with `vmap`: a fixed number of iterations, no
branch on values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from raymeta.types import Params


def conjugate_gradient(
    product: Callable[[Params], Params], target: Params, *, num_iterations: int
) -> Params:
    """An approximate solution x of A x = `target`, A symmetric and positive definite.

    Hestenes, Stiefel 1952; exact after as many iterations as A has distinct eigenvalues. Once the
    residual is 0 further iterations change nothing.

    Args:
        product: x -> A x.
        target: b, by name.
        num_iterations: products that are taken.
    """
    x = {name: torch.zeros_like(b) for name, b in target.items()}
    residual, direction = target, target
    size = _dot(residual, residual)
    for _ in range(num_iterations):
        image = product(direction)
        step = _ratio(size, _dot(direction, image))
        x = {name: v + step * direction[name] for name, v in x.items()}
        residual = {name: r - step * image[name] for name, r in residual.items()}
        last, size = size, _dot(residual, residual)
        turn = _ratio(size, last)
        direction = {name: r + turn * direction[name] for name, r in residual.items()}
    return x


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(v * b[name]).sum() for name, v in a.items()]).sum()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: the residual has vanished and the search is over."""
    return torch.where(b != 0.0, a / torch.where(b != 0.0, b, 1.0), 0.0)
