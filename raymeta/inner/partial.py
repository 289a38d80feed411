"""A task's loss cut open: at what no fast weight changes, and at the layers with fast weights.

The loss is traced once, on one task, into a graph of tensor operations. What no fast weight reaches
belongs to `before`, which runs once a task, outside the inner loop; `after` is the rest. In it a
linear layer or a look-up with a fast weight is a call of a function that the caller gives, so that
the weight need not be formed at all. What such a function does is `gram`'s matter; nothing here
knows of steps, rules or users.

Tracing sees operations, not Python: a loss that draws numbers, writes in place or reads values out
of tensors is not cut.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from raymeta.types import Params

Layout = Literal["out_in", "in_out", "rows"]
"""How a layer reads its weight W: x W^T (`torch.nn.Linear`), x W, or W[x] (a table of rows)."""

Arguments = tuple[Params, ...]
"""What a loss is a function of besides its fast weights: dictionaries of tensors."""


@dataclass(frozen=True)
class Layer:
    """A layer that is the only reader of its fast weight: [R, F] -> [R, D].

    Attributes:
        layout: how it reads its weight.
        num_rows: R of the traced task; for a table, how many of its rows are looked up.
        has_fixed_input: whether no fast weight changes its input.
    """

    layout: Layout
    num_rows: int
    has_fixed_input: bool


LayerCall = Callable[[Tensor], Tensor]
"""A layer's input -> its output, without the bias."""


@dataclass(frozen=True)
class CutLoss:
    """loss(fast, *arguments) = after(fast of no layer, layers, before(arguments)[0]).

    Attributes:
        layers: by name of their fast weight.
        before: arguments -> (what `after` needs of them, input of each layer that has a fixed one).
        after: see above; a scalar.
    """

    layers: dict[str, Layer]
    before: Callable[[Arguments], tuple[list[Tensor], Params]]
    after: Callable[[Params, Mapping[str, LayerCall], list[Tensor]], Tensor]


class TracedLoss:
    """A loss as a graph.

    Args:
        loss: (fast weights, *arguments) -> scalar, of one task.
        fast: fast weights of one task.
        arguments: its other arguments.

    Raises:
        UntraceableError: the loss is no pure function of tensors, as far as the trace can tell.
    """

    def __init__(self, loss: Callable[..., Tensor], fast: Params, arguments: Arguments) -> None:
        # the tracer costs a second to import, and few programs need it
        from torch.fx.experimental.proxy_tensor import make_fx

        flat, spec = pytree.tree_flatten(arguments)
        names = list(fast)

        def positional(*tensors: Tensor) -> Tensor:
            mine = dict(zip(names, tensors[: len(names)], strict=True))
            return loss(mine, *pytree.tree_unflatten(list(tensors[len(names) :]), spec))

        try:
            with torch.no_grad():
                self._module = make_fx(positional)(*fast.values(), *flat)
        except RuntimeError as error:  # how the tracer refuses to read a value out of a tensor
            raise UntraceableError(str(error)) from error
        self._module.graph.eliminate_dead_code()
        nodes = list(self._module.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        self._fast = dict(zip(names, placeholders, strict=False))
        self._given = placeholders[len(names) :]
        self._nodes = [node for node in nodes if node.op not in ("placeholder", "output")]
        self._result: fx.Node = nodes[-1].args[0]
        for node in self._nodes:
            _refuse_impure(node)
        self._changing = set(self._fast.values())
        for node in self._nodes:
            if not self._changing.isdisjoint(node.all_input_nodes):
                self._changing.add(node)

    @property
    def has_fixed_part(self) -> bool:
        """Whether anything is computed that no fast weight changes."""
        return any(node not in self._changing for node in self._nodes)

    def layers(self) -> dict[str, Layer]:
        """The layers that the loss can be cut at, by name of their fast weight."""
        found = {}
        for name, weight in self._fast.items():
            use = _single_use(weight)
            if use is not None:
                rows = _value(use.input)
                num_rows = rows.numel() if use.layout == "rows" else rows.shape[0]
                found[name] = Layer(use.layout, num_rows, use.input not in self._changing)
        return found

    def cut(self, names: frozenset[str]) -> CutLoss:
        """The loss cut at these of its `layers`."""
        layers = {name: layer for name, layer in self.layers().items() if name in names}
        uses = {name: _checked_use(self._fast[name]) for name in layers}
        called = {use.node: name for name, use in uses.items()}
        gone = {use.transposed for use in uses.values()} | {self._fast[name] for name in layers}
        rest = [node for node in self._nodes if node in self._changing and node not in gone]
        read = {i for node in rest for i in node.all_input_nodes} | {self._result}
        fixed = [n for n in (*self._given, *self._nodes) if n not in self._changing]
        frontier = [node for node in fixed if node in read]
        with_input = [name for name, layer in layers.items() if layer.has_fixed_input]

        first = _Part(self._module, self._given)
        for node in self._nodes:
            if node not in self._changing:
                first.copy(node)
        before = first.returning([*frontier, *(uses[name].input for name in with_input)])

        others = {name: node for name, node in self._fast.items() if name not in layers}
        second = _Part(self._module, [*others.values(), *frontier])
        functions = {name: second.placeholder(f"layer_{i}") for i, name in enumerate(layers)}
        for node in rest:
            if node in called:
                name = called[node]
                second.call(node, functions[name], uses[name].input, plus=_bias(node))
            else:
                second.copy(node)
        after = second.returning(self._result)

        def run_before(arguments: Arguments) -> tuple[list[Tensor], Params]:
            found = before(*pytree.tree_leaves(arguments))
            inputs = dict(zip(with_input, found[len(frontier) :], strict=True))
            return found[: len(frontier)], inputs

        def run_after(fast: Params, calls: Mapping[str, LayerCall], needed: list[Tensor]) -> Tensor:
            mine = (fast[name] for name in others)
            result: Tensor = after(*mine, *needed, *(calls[name] for name in functions))
            return result

        return CutLoss(layers, run_before, run_after)


class UntraceableError(Exception):
    """A loss that cannot be cut; never leaves `raymeta.inner`."""


@dataclass(frozen=True)
class _Use:
    """The one product or look-up that reads a weight."""

    node: fx.Node
    input: fx.Node
    layout: Layout
    transposed: fx.Node | None


def _single_use(weight: fx.Node) -> _Use | None:
    aten = torch.ops.aten
    layout: Layout = "in_out"
    source, transposed = weight, None
    if len(weight.users) == 1 and (only := next(iter(weight.users))).target is aten.t.default:
        source, layout, transposed = only, "out_in", only
    if len(source.users) != 1:
        return None
    node = next(iter(source.users))
    if node.kwargs:  # a scaled sum, a look-up with padding
        return None
    if node.target is aten.mm.default and node.args[1] is source:
        return _Use(node, _node(node.args[0]), layout, transposed)
    if node.target is aten.addmm.default and node.args[2] is source:
        return _Use(node, _node(node.args[1]), layout, transposed)
    if node.target is aten.embedding.default and len(node.args) == 2 and node.args[0] is weight:
        return _Use(node, _node(node.args[1]), "rows", None)
    return None


def _checked_use(weight: fx.Node) -> _Use:
    use = _single_use(weight)
    assert use is not None
    return use


def _bias(node: fx.Node) -> fx.Node | None:
    return _node(node.args[0]) if node.target is torch.ops.aten.addmm.default else None


def _node(argument: object) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _value(node: fx.Node) -> Tensor:
    """Shape and kind of what a node gave while it was traced."""
    return node.meta["val"] if "val" in node.meta else node.meta["tensor_meta"]


def _refuse_impure(node: fx.Node) -> None:
    if node.op == "get_attr" or node.target is operator.getitem:  # one of several results
        return
    if not isinstance(node.target, torch._ops.OpOverload):
        raise UntraceableError(f"{node.target} is not an operation on tensors")
    if node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags:
        raise UntraceableError(f"{node.target} writes in place or draws numbers")


def _call(layer: LayerCall, x: Tensor) -> Tensor:
    return layer(x)


class _Part:
    """A graph made of some nodes of another."""

    def __init__(self, module: fx.GraphModule, given: list[fx.Node]) -> None:
        self._module, self._graph = module, fx.Graph()
        self._copies: dict[fx.Node, fx.Node] = {n: self.placeholder(n.name) for n in given}

    def placeholder(self, name: str) -> fx.Node:
        return self._graph.placeholder(name)

    def copy(self, node: fx.Node) -> None:
        self._copies[node] = self._graph.node_copy(node, lambda n: self._copies[n])

    def call(self, node: fx.Node, layer: fx.Node, x: fx.Node, *, plus: fx.Node | None) -> None:
        made = self._graph.call_function(_call, (layer, self._copies[x]))
        if plus is not None:
            made = self._graph.call_function(torch.ops.aten.add.Tensor, (made, self._copies[plus]))
        self._copies[node] = made

    def returning(self, result: fx.Node | list[fx.Node]) -> Callable[..., Any]:
        self._graph.output(fx.map_arg(result, lambda n: self._copies[n]))
        run: Callable[..., Any] = fx.GraphModule(self._module, self._graph).forward
        return run
