"""The protocol of a model: one task's losses and scores as pure functions of named parameters.

A model is written for ONE task; `raymeta.inner` lifts it over a batch of tasks. It holds constants
(tables that are never trained) and no parameters.
"""

from typing import Protocol

import torch
from torch import Tensor

from raymeta.types import Examples, Params


class TaskModel(Protocol):
    """What the inner loop adapts and the outer loop trains.

    Attributes:
        adaptable: names of parameters small enough to be a user's own; the rest is only trained
            by the outer loop.
        head: the part of `adaptable` that is the last layer, for algorithms that adapt it alone.
    """

    @property
    def adaptable(self) -> frozenset[str]: ...

    @property
    def head(self) -> frozenset[str]: ...

    def init(self, generator: torch.Generator) -> Params:
        """Start values of all parameters."""
        ...

    def tables(self) -> Params:
        """The constants, by name: saved with an artifact, never trained."""
        ...

    def shared(self, params: Params) -> Params:
        """What does not differ between users (the item side), computed once a batch of tasks."""
        ...

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """The inner objective of one task (a scalar); 0 where the support is empty."""
        ...

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """The outer objective of one adapted task (a scalar)."""
        ...

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """Scores of one task's candidates, `[C]` (indices `[C]`), or of all items, `[I]`."""
        ...


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`, over the last axis; exactly 0 (with zero gradient) where
    nothing is selected."""
    weights = mask.to(values.dtype)
    return (torch.where(mask, values, 0.0)).sum(-1) / weights.sum(-1).clamp(min=1.0)
