"""The inner loop without a user's own copy of any weight matrix: the Gram form.

Steps of gradient descent with one rate a tensor move the weight of a linear layer along outer
products only. With X_i the layer's input at step i and D_i the derivative of the inner loss in its
output, and X, D these stacked over the steps so far, each D_i times its rate,

    W_k = W_0 - X^T D,      x W_k = x W_0 - (x X^T) D

so a user's state is X and D, `[n, F]` and `[n, D]`, in the place of `[F, D]`: x W_0 is one product
for all users with a weight that they share, and what is a user's own is small. Where the input does
not change over the steps, as in the first fast layer, the D_i add up, n stays the number of support
rows R, and X X^T and X W_0 are computed once; for a head alone that is the whole inner loop, a
recurrence on R x R numbers. A table of embeddings is the same layer with one-hot rows: its Gram
matrix says which look-ups are of the same row, and only rows that a user touches are ever read or
changed. This is the dual form of gradient descent (as of the perceptron: Aizerman, Braverman,
Rozonoer 1964), differentiated through. It is exact: the numbers are the definition's up to
rounding.

Which layers there are is found by `partial`; for which the form is worth it, by `forms`.

Shapes: R rows of a layer's support input, P of its query input, F its inputs, D its outputs, n
stacked rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from raymeta.inner.gradient import InnerProblem, detached, last
from raymeta.inner.partial import Arguments, CutLoss, Layer, LayerCall
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
    """The inner problem of a task in other coordinates: X and D in the place of a layer's weight.

    A point of the inner loop is named as fast weights are; under a layer's name it holds D and
    beside it X, and neither before the first step.

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
        inner = _Opened.of(self.support, start, support_arguments)
        outer = _Opened.of(self.query, start, query_arguments)
        return InnerProblem(
            start=inner.others,
            objective=inner.loss,
            query_loss=outer.loss,
            descend=lambda first_order: inner.path(descent, first_order=first_order),
        )

    def adapted(self, start: Params, support_arguments: Arguments, descent: Descent) -> Params:
        """The fast weights after the steps, formed at the end."""
        inner = _Opened.of(self.support, start, support_arguments)
        point = last(inner.path(descent, first_order=True))
        return {name: self._weight(name, w, point) for name, w in start.items()}

    def _weight(self, name: str, start: Tensor, point: Params) -> Tensor:
        if name not in self.support.layers:
            return point[name]
        if name not in point:
            return start
        return _weight(self.support.layers[name], start, point[_x(name)], point[name])


@dataclass(frozen=True)
class _Opened:
    """One task's cut loss and all that it needs.

    Attributes:
        start: fast weights before the first step.
        needed: what `CutLoss.after` needs of everything that does not change over the steps.
        inputs: X of each layer that has a fixed one.
    """

    cut: CutLoss
    start: Params
    needed: list[Tensor]
    inputs: Params

    @classmethod
    def of(cls, cut: CutLoss, start: Params, arguments: Arguments) -> "_Opened":
        return cls(cut, start, *cut.before(arguments))

    @property
    def others(self) -> Params:
        """The fast weights that are of no layer."""
        return {name: w for name, w in self.start.items() if name not in self.cut.layers}

    def loss(self, point: Params) -> Tensor:
        calls = {
            name: _moved_layer(name, layer, self.start[name], point)
            for name, layer in self.cut.layers.items()
        }
        return self.cut.after({name: point[name] for name in self.others}, calls, self.needed)

    def path(self, descent: Descent, *, first_order: bool) -> Iterator[Params]:
        """The point before the first step and after each."""
        rule, rate_of = descent.rule, descent.rule.rate
        assert rate_of is not None
        layers = self._layers(first_order)
        others, memory = self.others, rule.memory(self.others)
        moved: Params = {}
        yield others
        for step in range(descent.num_steps):
            (gradients, derivatives), inputs = self._slopes(layers, others, moved)
            if first_order:
                gradients, derivatives = detached(gradients), detached(derivatives)
                inputs = detached(inputs)
            others, memory = rule.update(descent.learned, memory, others, gradients, step)
            moved = {
                key: value
                for name, layer in layers.items()
                for key, value in layer.advanced(
                    moved, derivatives[name], rate_of(descent.learned, name, step), inputs
                ).items()
            }
            yield {**others, **moved}

    def _layers(self, first_order: bool) -> "dict[str, _FixedInput | _ChangingInput]":
        layers: dict[str, _FixedInput | _ChangingInput] = {}
        for name, layer in self.cut.layers.items():
            start = self.start[name]
            if layer.has_fixed_input:
                layers[name] = _FixedInput.of(
                    name, layer, start, self.inputs[name], constant=first_order
                )
            else:
                layers[name] = _ChangingInput(name, layer, start)
        return layers

    def _slopes(
        self, layers: "dict[str, _FixedInput | _ChangingInput]", others: Params, moved: Params
    ) -> tuple[tuple[Params, Params], Params]:
        """Derivatives in the other weights and in the layers' outputs; the changing inputs."""

        def objective(others: Params, handles: Params) -> tuple[Tensor, Params]:
            seen: Params = {}
            calls = {n: layer.call(handles[n], moved, seen) for n, layer in layers.items()}
            return self.cut.after(others, calls, self.needed), seen

        handles = {name: layer.handle(moved) for name, layer in layers.items()}
        slopes = torch.func.grad(objective, argnums=(0, 1), has_aux=True)
        return cast(tuple[tuple[Params, Params], Params], slopes(others, handles))


@dataclass(frozen=True)
class _FixedInput:
    """A layer whose input does not change: all that is done with the input is done once.

    Attributes:
        inputs: X, held constant where the gradient X^T D is.
        output: X W_0.
        gram: X X^T.
    """

    name: str
    inputs: Tensor
    output: Tensor
    gram: Tensor

    @classmethod
    def of(
        cls, name: str, layer: Layer, start: Tensor, inputs: Tensor, *, constant: bool
    ) -> "_FixedInput":
        factor = inputs.detach() if constant else inputs
        gram = _gram(layer, inputs, factor, start.dtype)
        return cls(name, factor, _product(layer, inputs, start), gram)

    def handle(self, moved: Params) -> Tensor:
        """What the derivative in the output is taken by: here the output itself."""
        if self.name not in moved:
            return self.output
        return _less(self.output, self.gram, moved[self.name])

    def call(self, handle: Tensor, moved: Params, seen: Params) -> LayerCall:
        del moved, seen
        return lambda _x: handle

    def advanced(
        self, moved: Params, derivative: Tensor, rate: Tensor | float, seen: Params
    ) -> Params:
        """X and D after one more step: D_i of the same inputs add up."""
        del seen
        change = _rows(derivative)
        before = moved.get(self.name)
        if before is None:
            total = change * rate
        elif isinstance(rate, Tensor):
            total = torch.addcmul(before, rate, change)
        else:
            total = torch.add(before, change, alpha=rate)
        return {self.name: total, _x(self.name): self.inputs}


@dataclass(frozen=True)
class _ChangingInput:
    """A layer that sees another input at every step: rows are stacked."""

    name: str
    layer: Layer
    start: Tensor

    def handle(self, moved: Params) -> Tensor:
        """What the derivative in the output is taken by: a zero that is added to it."""
        del moved
        num_outputs = self.start.shape[0 if self.layer.layout == "out_in" else 1]
        return self.start.new_zeros(self.layer.num_rows, num_outputs)

    def call(self, handle: Tensor, moved: Params, seen: Params) -> LayerCall:
        output = _moved_layer(self.name, self.layer, self.start, moved)

        def call(x: Tensor) -> Tensor:
            seen[self.name] = x
            return output(x) + handle

        return call

    def advanced(
        self, moved: Params, derivative: Tensor, rate: Tensor | float, seen: Params
    ) -> Params:
        """X and D after one more step."""
        change, inputs = derivative * rate, seen[self.name]
        if self.name in moved:
            change = torch.cat([moved[self.name], change])
            inputs = torch.cat([moved[_x(self.name)], inputs])
        return {self.name: change, _x(self.name): inputs}


def _x(name: str) -> str:
    """The name of X in a point, beside D under the name of the weight."""
    return f"{name}@input"


def _moved_layer(name: str, layer: Layer, start: Tensor, point: Params) -> LayerCall:
    """x -> x W_k."""
    if name not in point:
        return lambda x: _product(layer, x, start)
    inputs, derivatives = point[_x(name)], point[name]
    return lambda x: _less(
        _product(layer, x, start), _gram(layer, x, inputs, start.dtype), derivatives
    )


def _product(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    if layer.layout == "rows":
        return torch.nn.functional.embedding(x, weight)
    return x @ (weight.t() if layer.layout == "out_in" else weight)


def _gram(layer: Layer, x: Tensor, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """The products of rows of two inputs."""
    if layer.layout == "rows":
        return (x.reshape(-1, 1) == inputs.reshape(1, -1)).to(dtype)
    return x @ inputs.t()


def _less(output: Tensor, gram: Tensor, derivatives: Tensor) -> Tensor:
    """x W_0 - (x X^T) D."""
    return output - (gram @ derivatives).reshape(output.shape)


def _weight(layer: Layer, start: Tensor, inputs: Tensor, derivatives: Tensor) -> Tensor:
    """W_0 - X^T D, laid out as W."""
    if layer.layout == "rows":
        return torch.index_add(start, 0, inputs.reshape(-1), derivatives, alpha=-1)
    if layer.layout == "in_out":
        return start - inputs.t() @ derivatives
    return start - derivatives.t() @ inputs


def _rows(output: Tensor) -> Tensor:
    """`[R, D]`, whatever the shape of a look-up."""
    return output.reshape(-1, output.shape[-1])
