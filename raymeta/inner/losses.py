"""Losses row by row, their masked mean, and weights of several losses that are learned.

A row loss takes predictions and targets of one task, `[S, ...]` each, and returns `[S]`; what a
mask leaves out is for `masked_mean`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from raymeta.models.base import masked_mean
from raymeta.types import Params

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(predictions `[S, ...]`, targets `[S, ...]`) -> `[S]`."""


def squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """(prediction - target)^2, the mean over outputs. No factor 1/2, as in torch's mse_loss."""
    return (predictions - targets).square().flatten(1).mean(1)


def cross_entropy(predictions: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(prediction)[target]; targets are class indices `[S]`, or rows of probabilities.

    Written out because one-hot targets keep `[S, C]` for closed-form heads and stay differentiable.
    """
    log_probability = predictions.log_softmax(-1)
    if targets.dim() == predictions.dim():
        return -(targets * log_probability).sum(-1)
    return -log_probability.gather(-1, targets.long()[..., None])[..., 0]


def binary_cross_entropy(predictions: Tensor, targets: Tensor) -> Tensor:
    """log(1 + exp(-logit)) for a target of 1, log(1 + exp(logit)) for 0; mean over outputs."""
    rows = functional.softplus(predictions) - predictions * targets
    return rows.flatten(1).mean(1) if rows.dim() > 1 else rows


def mean_loss(loss: RowLoss, predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The mean of a row loss over the rows of the mask; 0 where there are none."""
    return masked_mean(loss(predictions, targets), mask)


def uncertainty_weighted(losses: Mapping[str, Tensor], log_variances: Params) -> Tensor:
    """sum_i exp(-s_i) L_i + s_i / 2, with s_i = log sigma_i^2 learned.

    Kendall, Gal, Cipolla: Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, eq. 7
    and 10, with the factor of a classification loss for all (a squared error's 1/2 is a matter of
    its definition). At s = 0 it is the sum of the losses.

    Args:
        losses: name -> scalar.
        log_variances: the same names -> s_i.
    """
    terms = [torch.exp(-log_variances[n]) * v + 0.5 * log_variances[n] for n, v in losses.items()]
    return torch.stack(terms).sum()
