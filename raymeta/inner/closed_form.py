"""Heads that are solved for instead of descended to: ridge, logistic by Newton, class prototypes.

Everything is written for one task, differentiable, and safe to lift over a batch with `vmap`.
Rows that a mask leaves out change nothing.

Shapes: S support rows, D width of a feature row, C outputs (classes).
"""

import torch
from torch import Tensor


def ridge(features_SD: Tensor, targets_SC: Tensor, mask_S: Tensor, penalty: Tensor) -> Tensor:
    """argmin_W |X W - Y|^2 + penalty * |W|^2, as `[D, C]`.

    Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with differentiable closed-form solvers,
    ICLR 2019, eq. 4; with fewer rows than features the system solved is S x S (Woodbury, eq. 5).
    """
    x = torch.where(mask_S[:, None], features_SD, 0.0)
    y = torch.where(mask_S[:, None], targets_SC, 0.0)
    num_rows, width = x.shape
    if num_rows < width:
        return x.T @ _solve(x @ x.T + penalty * _eye(x, num_rows), y)
    return _solve(x.T @ x + penalty * _eye(x, width), x.T @ y)


def logistic(
    features_SD: Tensor,
    targets_SC: Tensor,
    mask_S: Tensor,
    penalty: Tensor,
    *,
    num_iterations: int,
) -> Tensor:
    """Newton's steps towards argmin_W sum log(1 + exp(-+x w)) + penalty/2 |w|^2, as `[D, C]`.

    Iteratively reweighted least squares from W = 0, each a weighted ridge regression solved in its
    S x S form (Bertinetto et al. 2019, section 3.3, eq. 8-10). Differs from the paper, which has
    two classes: each of the C columns is one class against the rest.

    Args:
        targets_SC: 1 for the row's class, 0 elsewhere.
        num_iterations: Newton steps.
    """
    x = torch.where(mask_S[:, None], features_SD, 0.0)
    gram = x @ x.T

    def newton(_logits: Tensor, target_S: Tensor) -> Tensor:
        probability = torch.sigmoid(_logits)
        # curvature of a row; bounded below so that a row far on its side does not divide by 0
        curvature = (probability * (1.0 - probability)).clamp(min=1e-4)
        response = _logits + (target_S - probability) / curvature
        return _solve(gram + torch.diag(penalty / curvature), response[:, None])[:, 0]

    def one_class(target_S: Tensor) -> Tensor:
        dual = torch.zeros_like(target_S)
        for _ in range(num_iterations):
            dual = newton(gram @ dual, target_S)
        return x.T @ dual

    return torch.func.vmap(one_class, in_dims=1, out_dims=1)(targets_SC)


def class_means(features_SD: Tensor, targets_SC: Tensor, mask_S: Tensor) -> Tensor:
    """The mean feature row of each class, `[C, D]`; zeros for a class without rows."""
    member_SC = torch.where(mask_S[:, None], targets_SC, 0.0)
    return (member_SC.T @ features_SD) / member_SC.sum(0).clamp(min=1.0)[:, None]


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solves a symmetric positive definite system."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def _eye(like: Tensor, size: int) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
