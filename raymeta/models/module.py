"""Any `torch.nn.Module` and a row loss as a model: few-shot learning outside a shop.

The module maps rows to predictions, one row at a time as far as the result goes, so that padding
and batching change nothing. Its parameters are called by value (`torch.func.functional_call`); the
module itself is never changed. Examples have `x` `[T, S, ...]`, `y` and `mask` `[T, S]`.

Shapes: S rows of a task, C outputs, D width of the head's input.
"""

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raymeta.errors import ConfigError
from raymeta.inner.losses import RowLoss, mean_loss, uncertainty_weighted
from raymeta.types import Examples, Params

_ACTIVATIONS = "activations."
_LOG_VARIANCE = "log_variance."


class ModuleModel:
    """A module as what the inner loop adapts and the outer loop trains.

    Its parameters as they are when this is made are the start of meta-training; a pre-trained
    module starts from what it knows. It is split into stages (the children of an `nn.Sequential`;
    for another module its head and what comes before), and the stages before the first fast weight
    run once for a batch of tasks, outside the inner loop.

    Args:
        module: rows `[S, ...]` -> predictions `[S, ...]`; with several losses, a dictionary of
            them by name.
        loss: the loss of a row; or several by name, for a module with several outputs. Then the
            targets are `y.<name>`, the inner objective weighs the losses by learned variances
            (`uncertainty_weighted`), and the query loss is their plain sum.
        head: name of the layer whose output is the module's; if not given, the last layer with
            parameters. Not needed where no algorithm asks for a head.
        adaptable: globs over parameter names that may be fast; the rest is only trained by the
            outer loop.

    Raises:
        ConfigError: the module has batch normalisation or dropout in training mode, a name matches
            nothing, or the head is not the end of the module.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: RowLoss | Mapping[str, RowLoss],
        *,
        head: str | None = None,
        adaptable: Sequence[str] = ("*",),
    ) -> None:
        _refuse_batch_statistics(module)
        self._module = copy.deepcopy(module)
        self._losses = {"": loss} if callable(loss) else dict(loss)
        self._several = not callable(loss)
        self._head = _last_layer(self._module) if head is None else head
        self._in_head = f"{self._head}." if self._head else ""
        names = [name for name, _ in self._module.named_parameters()]
        self.adaptable = frozenset(n for n in names if any(fnmatchcase(n, g) for g in adaptable))
        if not self.adaptable:
            raise ConfigError(
                f"adaptable={list(adaptable)} matches none of {names}.",
                remedy="Give globs over the module's parameter names.",
            )
        self.head = frozenset(n for n in self.adaptable if n.startswith(self._in_head))
        self._stages = _stages(self._module, self._head)
        self._head_is_last = isinstance(self._module, nn.Sequential)

    def init(self, generator: torch.Generator) -> Params:
        """The module's own parameters; nothing is drawn."""
        del generator
        params = {name: p.detach().clone() for name, p in self._module.named_parameters()}
        like = next(iter(params.values()))
        if self._several:
            params |= {f"{_LOG_VARIANCE}{name}": like.new_zeros(()) for name in self._losses}
        return params

    def tables(self) -> Params:
        """The module's buffers."""
        return {name: b.detach().clone() for name, b in self._module.named_buffers()}

    def shared(self, params: Params) -> Params:
        del params
        return {}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        del shared
        losses = self._task_losses(params, support)
        if not self._several:
            return losses[""]
        weights = {name: params[f"{_LOG_VARIANCE}{name}"] for name in losses}
        return uncertainty_weighted(losses, weights)

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        del shared, support
        return torch.stack(list(self._task_losses(params, query).values())).sum()

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """Predictions `[C, ...]` for rows `x` `[C, ...]`."""
        del shared
        if candidates is None or self._several:
            raise ConfigError(
                "A module has no catalogue to score, and one score only where it has one output.",
                remedy="Give the rows x as candidates, to a module with one loss.",
            )
        predictions: Tensor = self._run(params, candidates, first=0)
        return predictions

    def with_activations(
        self, params: Params, examples: Examples, fast: frozenset[str]
    ) -> Examples:
        """`examples` and the activations before the first stage with a fast weight."""
        first = next((i for i, s in enumerate(self._stages) if s.holds(fast)), len(self._stages))
        if first == 0:
            return examples
        self._check_head(params, examples)
        rows = examples["x"]
        flat = self._run(params, rows.flatten(0, 1), first=0, stop=first)
        return {
            **examples,
            f"{_ACTIVATIONS}{first}": flat.reshape(*rows.shape[:2], *flat.shape[1:]),
        }

    @property
    def head_weight(self) -> str:
        layer = self._module.get_submodule(self._head)
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"The head {self._head!r} is a {type(layer).__name__}: only a linear one can be "
                "solved for.",
                remedy="End the module in nn.Linear, or use an algorithm of gradient steps.",
            )
        return f"{self._in_head}weight"

    @property
    def head_bias(self) -> str | None:
        name = f"{self._in_head}bias"
        return name if name in self.head else None

    def features(self, params: Params, examples: Examples) -> Tensor:
        """Inputs of the head, `[S, D]`."""
        first, rows = _begin(examples)
        inputs: Tensor = self._run(params, rows, first=first, stop=len(self._stages) - 1)
        return inputs

    def targets(self, params: Params, examples: Examples) -> Tensor:
        """Targets `[S, C]`; class indices become one-hot rows."""
        y = examples["y"]
        num_outputs, like = params[self.head_weight].shape[0], params[self.head_weight]
        if y.is_floating_point():
            return y.reshape(len(y), num_outputs).to(like.dtype)
        classes = torch.arange(num_outputs, device=y.device)
        return (y[:, None] == classes).to(like.dtype)

    def rows(self, params: Params, examples: Examples) -> Tensor:
        """Inputs and targets side by side, `[S, F]`."""
        return torch.cat([examples["x"].flatten(1), self.targets(params, examples)], 1)

    def _task_losses(self, params: Params, examples: Examples) -> Params:
        first, rows = _begin(examples)
        predictions = self._run(params, rows, first=first)
        if not self._several:
            return {"": mean_loss(self._losses[""], predictions, examples["y"], examples["mask"])}
        return {
            name: mean_loss(loss, predictions[name], examples[f"y.{name}"], examples["mask"])
            for name, loss in self._losses.items()
        }

    def _run(self, params: Params, x: Tensor, *, first: int, stop: int | None = None) -> Any:
        """The stages from `first` up to `stop` on rows `[S, ...]`."""
        if first == 0 and stop is None:
            return _call(self._module, params, x)
        for stage in self._stages[first:stop]:
            x = stage(params, x)
        return x

    def _check_head(self, params: Params, examples: Examples) -> None:
        """The head is the end of the module: looked at once, where the split is first used."""
        if self._head_is_last:
            return
        outputs: list[Tensor] = []
        layer = self._module.get_submodule(self._head)
        handle = layer.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        try:
            whole = _call(self._module, params, examples["x"].flatten(0, 1))
        finally:
            handle.remove()
        if len(outputs) != 1 or whole is not outputs[0]:
            raise ConfigError(
                f"The module's output is not that of {self._head!r} alone, so that layer is not a "
                "head.",
                remedy="Name the last layer with head=, and put what follows it into the loss.",
            )
        self._head_is_last = True


class _Stage:
    """A part of a module, called with the parameters of the whole."""

    def __init__(self, module: nn.Module, prefixes: Mapping[str, str]) -> None:
        self._module = module
        self._names = prefixes  # name in the whole -> name in this part

    def holds(self, names: frozenset[str]) -> bool:
        return not names.isdisjoint(self._names)

    def __call__(self, params: Params, x: Tensor) -> Any:
        return _call(self._module, {own: params[name] for name, own in self._names.items()}, x)


def _call(module: nn.Module, params: Params, x: Tensor) -> Any:
    mine = {n: p for n, p in params.items() if not n.startswith(_LOG_VARIANCE)}
    return functional_call(module, mine, (x,))


def _stages(module: nn.Module, head: str) -> list[_Stage]:
    """The children of an `nn.Sequential`, or the body (the module less its head) and the head.

    A module that is a layer itself is all head.
    """
    if isinstance(module, nn.Sequential):
        return [
            _Stage(child, {f"{name}.{own}": own for own, _ in child.named_parameters()})
            for name, child in module.named_children()
        ]
    if not head:
        return [_Stage(module, {own: own for own, _ in module.named_parameters()})]
    body = copy.deepcopy(module)
    parent, _, leaf = head.rpartition(".")
    setattr(body.get_submodule(parent), leaf, nn.Identity())
    layer = module.get_submodule(head)
    return [
        _Stage(body, {name: name for name, _ in body.named_parameters()}),
        _Stage(layer, {f"{head}.{own}": own for own, _ in layer.named_parameters()}),
    ]


def _begin(examples: Examples) -> tuple[int, Tensor]:
    """The stage to go on from, and what goes into it."""
    for name, value in examples.items():
        if name.startswith(_ACTIVATIONS):
            return int(name.removeprefix(_ACTIVATIONS)), value
    return 0, examples["x"]


def _last_layer(module: nn.Module) -> str:
    """The name of the last layer with parameters of its own; "" where that is the module itself."""
    names = [
        name
        for name, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    if not names:
        raise ConfigError(
            f"{type(module).__name__} has no parameters.", remedy="Give a module that can learn."
        )
    return names[-1]


def _refuse_batch_statistics(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        batch_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        dropout = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.0
        if layer.training and (batch_norm or dropout):
            raise ConfigError(
                f"{name} ({type(layer).__name__}) in training mode makes a row's result depend on "
                "the other rows or on chance: a user would not get what it gets alone.",
                remedy="Use group or layer normalisation, or call module.eval() first.",
            )
