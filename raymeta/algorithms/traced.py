"""A learner whose meta-gradient and adapting run as recorded operations instead of Python.

On small networks the time of a step is Python's and the dispatcher's: modules, dictionaries, and
the nested transforms of `vmap` over `grad`. A traced learner runs its learner once for each
combination of shapes, records the operations on tensors that it came down to, and from then on runs
the record: the same operations on the same numbers. `compile` gives the record to torch.compile,
which fuses it into a few loops of C++: several times faster again on small networks, nothing on
large ones, and minutes of set-up; so neither is the default.

A record holds what was constant while it was made. A learner that anneals over the outer loop is
run as it is until its annealing is over. A record is adopted after it gave the learner's numbers on
the inputs at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.errors import AdaptationError
from raymeta.types import Examples, MetaGradient, Params, TaskBatch, TaskState

Flat = Callable[..., list[Tensor]]

MAX_FOLDED = 1 << 16
"""Numbers of a value that is worked out while recording, at most: what is larger would be kept a
second time beside the table that it comes from."""

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@dataclass(frozen=True)
class Traced:
    """A learner that runs from records.

    Args:
        algorithm: the learner; it must not change afterwards, nor what its model holds.
        compile: whether records are compiled by torch.compile (needs a C++ compiler).
    """

    algorithm: GradientBased
    compile: bool = False
    _records: dict[object, "_Record"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def init(self, generator: torch.Generator) -> Params:
        return self.algorithm.init(generator)

    def tables(self) -> Params:
        return self.algorithm.tables()

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        return self.algorithm.score(meta_params, state, candidates)

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        return cast(TaskState, self._run("adapt", self.algorithm.adapt, meta_params, support))

    def meta_gradient(
        self,
        meta_params: Params,
        batch: TaskBatch,
        *,
        per_task: bool = False,
        outer_step: int | None = None,
    ) -> MetaGradient:
        if outer_step is not None and outer_step < self.algorithm.mode.annealed_until:
            return self.algorithm.meta_gradient(
                meta_params, batch, per_task=per_task, outer_step=outer_step
            )

        def gradient(params: Params, support: Examples, query: Examples) -> tuple[Params, Tensor]:
            found = self.algorithm.meta_gradient(
                params, TaskBatch(support, query), per_task=per_task
            )
            return found.gradients, found.loss_sum

        name = "gradients" if per_task else "gradient"
        gradients, loss = self._run(name, gradient, meta_params, batch.support, batch.query)
        return MetaGradient(gradients, loss, batch.num_tasks)

    def _run(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        flat, spec = pytree.tree_flatten(arguments)
        key = (name, spec, tuple((t.shape, t.dtype, t.device) for t in flat))
        if key not in self._records:
            self._records[key] = self._recorded(name, function, arguments)
        record = self._records[key]
        with torch.no_grad():
            return pytree.tree_unflatten(record.run(*flat), record.spec)

    def _recorded(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> "_Record":
        flat, spec = pytree.tree_flatten(arguments)
        # first as it is: the learner picks its execution form on tensors that are no tracer's
        expected, found_spec = pytree.tree_flatten(function(*arguments))

        def positional(*tensors: Tensor) -> list[Tensor]:
            return pytree.tree_leaves(function(*pytree.tree_unflatten(list(tensors), spec)))

        module = operations(positional, flat, fast_calls=not self.compile)
        run: Flat = module.forward
        if self.compile:
            run = torch.compile(module, fullgraph=True, dynamic=False)
        with torch.no_grad():
            require_equal(name, run(*flat), expected)
        return _Record(run, found_spec)


@dataclass(frozen=True)
class _Record:
    """What to run, and the structure of its result."""

    run: Flat
    spec: pytree.TreeSpec


def operations(function: Flat, inputs: list[Tensor], *, fast_calls: bool) -> fx.GraphModule:
    """The operations on tensors that a function comes down to, as a function of its inputs."""
    from torch.fx.experimental.proxy_tensor import make_fx  # a second to import

    module = make_fx(function)(*inputs)
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.detach.default:  # no derivatives are taken of a record
            _replaced(node, node.args[0])
    _simplify(graph)
    _fold_constants(module)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if fast_calls and isinstance(node.target, torch._ops.OpOverload):
            node.target = _bound(node.target)
    module.recompile()
    return module


def _simplify(graph: fx.Graph) -> None:
    """What is computed in every inner step from the same values is computed once.

    First, operations that change nothing are left out: derivatives are full of them.
    """
    operations = [n for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    if any(node.target._schema.is_mutable for node in operations):
        return  # a value that is written to is not the same value twice
    first: dict[object, fx.Node] = {}
    for node in operations:
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            continue
        same = _unchanged(node) or first.setdefault(_key(node), node)
        if same is not node:
            _replaced(node, same)


def _fold_constants(module: fx.GraphModule) -> None:
    """What depends on nothing but what the record holds is worked out now.

    So is what depends on a shape alone, such as the ones that a derivative begins with; a product
    with them is the other factor.
    """
    graph = module.graph
    known: dict[fx.Node, Tensor] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(module, cast(str, node.target))
        elif _is_pure(node) and (value := _worked_out(node, known)) is not None:
            name = f"_folded{len(known)}"
            module.register_buffer(name, value)
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            constant.meta["val"] = node.meta["val"]
            known[constant] = value
            _replaced(node, constant)
        elif (same := _other_factor(node, known)) is not None:
            _replaced(node, same)


def _is_pure(node: fx.Node) -> bool:
    operation = node.target
    return (
        isinstance(operation, torch._ops.OpOverload)
        and not operation._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in operation.tags
        and isinstance(node.meta.get("val"), Tensor)
        and _value(node).numel() <= MAX_FOLDED
    )


def _worked_out(node: fx.Node, known: dict[fx.Node, Tensor]) -> Tensor | None:
    """The value of a node whose inputs are all `known`, or that has its input's shape only."""
    if node.target is torch.ops.aten.ones_like.default:
        like = _value(node)  # has a shape and no numbers
        return torch.ones(like.shape, dtype=like.dtype, device=like.device)
    if any(source not in known for source in node.all_input_nodes):
        return None
    arguments = fx.map_arg((node.args, node.kwargs), known.__getitem__)
    args, kwargs = cast(tuple[tuple[Any, ...], dict[str, Any]], arguments)
    with torch.no_grad():
        return cast(Tensor, cast(Callable[..., Any], node.target)(*args, **kwargs))


def _other_factor(node: fx.Node, known: dict[fx.Node, Tensor]) -> fx.Node | None:
    """Of a product with ones, what it is equal to."""
    if node.target is not torch.ops.aten.mul.Tensor:
        return None
    for one, other in (node.args, node.args[::-1]):
        if (
            isinstance(one, fx.Node)
            and isinstance(other, fx.Node)
            and one in known
            and _value(other).shape == _value(node).shape
            and _value(other).dtype == _value(node).dtype
            and bool((known[one] == 1.0).all())
        ):
            return other
    return None


def _unchanged(node: fx.Node) -> fx.Node | None:
    """What `node` is equal to, if it changes nothing.

    A view of a view is made a view of what that views, whose own view may then be in vain.
    """
    aten, source = torch.ops.aten, node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.target is aten.t.default and source.target is aten.t.default:
        return cast(fx.Node, source.args[0])
    if node.target is aten.pow.Tensor_Scalar and node.args[1] == 1:
        return source
    if node.target in _VIEWS and source.target in _VIEWS:
        source = cast(fx.Node, source.args[0])
        node.update_arg(0, source)
    if node.target in (*_VIEWS, aten.expand.default) and _value(node).shape == _value(source).shape:
        return source
    return None


def _key(node: fx.Node) -> object:
    """The same for nodes of the same value."""
    if node.target is torch.ops.aten.ones_like.default:
        like = _value(node)
        return node.target, like.shape, like.stride(), like.dtype, like.device
    return f"{node.target} {node.args} {node.kwargs}"  # nodes print as their unique names


def _value(node: fx.Node) -> Tensor:
    """What a node gave while it was recorded, in shape and kind."""
    return cast(Tensor, node.meta["val"])


def _replaced(node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def _bound(operation: torch._ops.OpOverload) -> Callable[..., Any]:
    """Python's own binding of an operation, where it has one: a third of the cost of a call."""
    name = operation._schema.name.removeprefix("aten::")
    if name == "index":  # Tensor.index is another function
        return operation
    found = getattr(torch, name, None) or getattr(Tensor, name, None)
    return cast(Callable[..., Any], found if callable(found) else operation)


def require_equal(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    """Refuses a record that gives other numbers than the learner.

    Raises:
        AdaptationError: naming how far it is off.
    """
    for value, wanted in zip(found, expected, strict=True):
        tolerance = torch.finfo(wanted.dtype).eps ** 0.5 if wanted.is_floating_point() else 0.0
        error = (value - wanted).abs().max() if wanted.numel() else torch.zeros(())
        # also false where either is not a number
        if not bool(error <= tolerance * wanted.abs().max().clamp(min=1.0)):
            raise AdaptationError(
                f"The record of the learner's {name} gives other numbers: off by {float(error)}.",
                remedy="Run the learner untraced: it draws numbers, or its model changes.",
            )
