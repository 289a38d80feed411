"""The inner loop without a copy of the weights of its first layer: the Gram form.

The input X of a layer that comes before every other fast one does not change over the inner steps.
Steps of gradient descent with one rate a tensor then move its weight along rows of X only: with
D_i the derivative of the inner loss in the layer's output at step i and A_k = sum_{i<k} rate_i D_i,

    W_k = W_0 - X^T A_k,   X W_k = X W_0 - (X X^T) A_k,   X' W_k = X' W_0 - (X' X^T) A_k

so a user's state is A_k, `[R, D]` (R rows of the support), where the weight is `[F, D]`: X W_0 is
one product for all users with a weight that they share, and a step costs R x R x D. For a head
alone it is the whole inner loop, a recurrence on R x R numbers. A table of embeddings is the same
layer with one-hot rows: its Gram matrix says which look-ups are of the same row, and only rows that
a user touches are ever read or changed. This is the dual form of gradient descent on a linear layer
(as of the perceptron: Aizerman, Braverman, Rozonoer 1964), differentiated through. It is exact: the
numbers are the definition's up to rounding.

Which layers these are is found by `partial`; whether the form is worth it, by `forms`.

Shapes: R rows of a layer's support input, P of its query input, F its inputs, D its outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from raymeta.inner.gradient import InnerProblem, last
from raymeta.inner.partial import Arguments, CutLoss, Layer
from raymeta.inner.rules import UpdateRule
from raymeta.types import Params


@dataclass(frozen=True)
class Descent:
    """How the fast weights move: a rule that has a rate, its learned values, the steps."""

    rule: UpdateRule
    learned: Params
    num_steps: int


@dataclass(frozen=True)
class GramForm:
    """The inner problem of a task in other coordinates: X and A in the place of a layer's weight.

    A point of the inner loop is named as fast weights are; under a layer's name it holds A and
    beside it X, and neither while A is zero.

    Args:
        support: the inner loss, cut.
        query: the outer loss, cut at the same layers; None where only `adapted` is wanted.
    """

    support: CutLoss
    query: CutLoss | None

    def problem(
        self,
        start: Params,
        support_arguments: Arguments,
        query_arguments: Arguments,
        descent: Descent,
    ) -> InnerProblem:
        """One task, for a mode that asks for the path and the query loss along it."""
        assert self.query is not None
        inner = _Fixed.of(self.support, start, support_arguments)
        outer = _Fixed.of(self.query, start, query_arguments)
        return InnerProblem(
            start=inner.others,
            objective=inner.loss,
            query_loss=outer.loss,
            descend=lambda first_order: inner.path(descent, first_order=first_order),
        )

    def adapted(self, start: Params, support_arguments: Arguments, descent: Descent) -> Params:
        """The fast weights after the steps, formed at the end."""
        inner = _Fixed.of(self.support, start, support_arguments)
        point = last(inner.path(descent, first_order=True))
        layers = {name: layer for name, layer in self.support.layers.items() if name in point}
        formed = {
            n: _weight(layer, start[n], point[_x(n)], point[n]) for n, layer in layers.items()
        }
        return {
            name: formed[name] if name in formed else point.get(name, w)
            for name, w in start.items()
        }


@dataclass(frozen=True)
class _Fixed:
    """One task's cut loss, with everything computed that does not change over the steps.

    Attributes:
        others: the fast weights that belong to no layer, before the first step.
        inputs: X of each layer (X' of the query).
        outputs: X W_0 of each layer.
    """

    cut: CutLoss
    others: Params
    needed: list[Tensor]
    inputs: Params
    outputs: Params

    @classmethod
    def of(cls, cut: CutLoss, start: Params, arguments: Arguments) -> "_Fixed":
        needed, inputs = cut.before(arguments)
        outputs = {n: _outputs(layer, inputs[n], start[n]) for n, layer in cut.layers.items()}
        others = {name: w for name, w in start.items() if name not in cut.layers}
        return cls(cut, others, needed, inputs, outputs)

    def loss(self, point: Params) -> Tensor:
        outputs = self._moved({n: point[n] for n in self.outputs if n in point}, self._grams(point))
        return self.cut.after({name: point[name] for name in self.others}, outputs, self.needed)

    def path(self, descent: Descent, *, first_order: bool) -> Iterator[Params]:
        """The point before the first step and after each."""
        rule, rate_of = descent.rule, descent.rule.rate
        assert rate_of is not None
        slopes = torch.func.grad(self.cut.after, argnums=(0, 1))
        # held constant with the gradient, X^T D, that it is a factor of
        inputs = {_x(n): x.detach() if first_order else x for n, x in self.inputs.items()}
        grams = self._grams(inputs)
        others, memory = self.others, rule.memory(self.others)
        moved: Params = {}
        yield others
        for step in range(descent.num_steps):
            gradients, derivatives = slopes(others, self._moved(moved, grams), self.needed)
            if first_order:
                gradients = {name: g.detach() for name, g in gradients.items()}
                derivatives = {name: d.detach() for name, d in derivatives.items()}
            others, memory = rule.update(descent.learned, memory, others, gradients, step)
            moved = {
                name: _plus(moved.get(name), rate_of(descent.learned, name, step), _rows(d))
                for name, d in derivatives.items()
            }
            yield {**others, **moved, **inputs}

    def _grams(self, inputs: Params) -> Params:
        """Products with the support's inputs, of the layers that have some: X X^T, or X' X^T."""
        return {
            name: _gram(layer, self.inputs[name], inputs[_x(name)], self.outputs[name].dtype)
            for name, layer in self.cut.layers.items()
            if _x(name) in inputs
        }

    def _moved(self, moved: Params, grams: Params) -> Params:
        """X W_0 - (X X^T) A, or X' W_0 - (X' X^T) A."""
        return {
            name: z - (grams[name] @ moved[name]).reshape(z.shape) if name in moved else z
            for name, z in self.outputs.items()
        }


def _x(name: str) -> str:
    """The name of a layer's support input in a point."""
    return f"{name}@input"


def _outputs(layer: Layer, inputs: Tensor, weight: Tensor) -> Tensor:
    if layer.layout == "rows":
        return torch.nn.functional.embedding(inputs, weight)
    return inputs @ (weight.t() if layer.layout == "out_in" else weight)


def _gram(layer: Layer, of: Tensor, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """`[P, R]`: the products of rows of two inputs."""
    if layer.layout == "rows":
        return (of.reshape(-1, 1) == inputs.reshape(1, -1)).to(dtype)
    return of @ inputs.t()


def _weight(layer: Layer, start: Tensor, inputs: Tensor, moved: Tensor) -> Tensor:
    """W_0 - X^T A, laid out as W."""
    if layer.layout == "rows":
        return torch.index_add(start, 0, inputs.reshape(-1), moved, alpha=-1)
    if layer.layout == "in_out":
        return start - inputs.t() @ moved
    return start - moved.t() @ inputs


def _plus(moved: Tensor | None, rate: Tensor | float, change: Tensor) -> Tensor:
    """A + rate * D."""
    if moved is None:
        return change * rate
    if isinstance(rate, Tensor):
        return torch.addcmul(moved, rate, change)
    return torch.add(moved, change, alpha=rate)


def _rows(outputs: Tensor) -> Tensor:
    """`[R, D]`, whatever the shape of a look-up."""
    return outputs.reshape(-1, outputs.shape[-1])
