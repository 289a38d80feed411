"""The protocol that every meta-learner meets; training, evaluation and serving know no more."""

from typing import Protocol

import torch
from torch import Tensor

from raymeta.types import Examples, MetaGradient, Params, TaskBatch, TaskState


class MetaAlgorithm(Protocol):
    """A meta-learner as pure functions of its meta-parameters."""

    def init(self, generator: torch.Generator) -> Params:
        """Start values of the meta-parameters, by flat name."""
        ...

    def tables(self) -> Params:
        """Constants that belong to the learner and are saved with it."""
        ...

    def served(self, meta_params: Params) -> "tuple[MetaAlgorithm, Params]":
        """The learner and its meta-parameters as an artifact carries them: without what only
        training needs. What it gives a new user is what is validated, evaluated and served."""
        ...

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        """Each user's state `[T, ...]`, as it would be alone; the one definition of adapting."""
        ...

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        """Scores of candidates `[T, C]` (indices, same shape), or of all items `[T, I]`."""
        ...

    def meta_gradient(
        self,
        meta_params: Params,
        batch: TaskBatch,
        *,
        per_task: bool = False,
        outer_step: int | None = None,
    ) -> MetaGradient:
        """Gradient of the summed query loss in the meta-parameters.

        Args:
            meta_params: where it is taken.
            batch: the tasks.
            per_task: one gradient a task, not their sum.
            outer_step: from 0, for what is annealed over the outer loop (MAML++); None: all
                annealing is over.
        """
        ...
