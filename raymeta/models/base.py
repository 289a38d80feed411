"""The protocol of a model: one task's losses and scores as pure functions of named parameters.

A model is written for ONE task; `raymeta.inner` lifts it over a batch of tasks. It holds constants
(tables that are never trained) and no parameters.
"""

from typing import Protocol, runtime_checkable

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


@runtime_checkable
class SplitsBody(Protocol):
    """A model that can compute what does not depend on the fast weights before the inner loop."""

    def with_activations(
        self, params: Params, examples: Examples, fast: frozenset[str]
    ) -> Examples:
        """`examples` of a batch of tasks, `[T, ...]`, and what their losses need of the body.

        Losses of the result equal losses of `examples`, as long as only names in `fast` change.
        """
        ...


@runtime_checkable
class ReadsFeatures(Protocol):
    """A model to which a task is not quite unknown before its first row: a user with features."""

    def given(self, params: Params, support: Examples) -> Params:
        """Parameters of one task as its features make them, before any inner step.

        They stand in for the learned ones of the same names, in the start of the fast set and in
        what stays slow, and are a part of the task's state. `shared` reads none of them.
        """
        ...


@runtime_checkable
class ReadsSupport(Protocol):
    """A model that scores by what it reads of the support, with what was adapted or without."""

    def read(self, params: Params, support: Examples) -> Params:
        """The state of one adapted task: all that `score` needs beside the slow parameters.

        It takes the place of the fast weights, which may be more than that or less.
        """
        ...


@runtime_checkable
class ServedSmaller(Protocol):
    """A model that holds more for training than adapting a new user needs."""

    def serving(self) -> TaskModel:
        """The model that is served."""
        ...

    def serving_params(self, params: Params) -> Params:
        """Parameters of this model, or a rule's numbers for them, as those of `serving`."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """A model that gives probabilities of what a user does with an item.

    Attributes:
        targets: what each of them is of.
    """

    @property
    def targets(self) -> tuple[str, ...]: ...

    def predict(self, params: Params, shared: Params, rows: Examples) -> Tensor:
        """Probabilities `[C, targets]` for one task; `rows` has `item` and what a row of it has."""
        ...


@runtime_checkable
class HasRows(Protocol):
    """A model whose support is rows that an encoder of the support set can read."""

    def rows(self, params: Params, examples: Examples) -> Tensor:
        """What is known of each row of one task, target included, `[S, F]`."""
        ...


@runtime_checkable
class HasLinearHead(Protocol):
    """A model whose output is a linear layer of features: what a closed-form head solves for."""

    @property
    def head_weight(self) -> str:
        """Name of the head's weight, `[C, D]`."""
        ...

    @property
    def head_bias(self) -> str | None:
        """Name of the head's bias, `[C]`, or None."""
        ...

    def features(self, params: Params, examples: Examples) -> Tensor:
        """Inputs of the head for the rows of one task, `[S, D]`."""
        ...

    def targets(self, params: Params, examples: Examples) -> Tensor:
        """What the head should give for the rows of one task, `[S, C]`; one-hot for classes."""
        ...


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`, over the last axis; exactly 0 (with zero gradient) where
    nothing is selected."""
    weights = mask.to(values.dtype)
    return (torch.where(mask, values, 0.0)).sum(-1) / weights.sum(-1).clamp(min=1.0)
