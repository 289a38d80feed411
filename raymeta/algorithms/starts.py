"""Where a task's fast weights start: learned, or made from its support before any inner step.

A start is the fourth choice behind a learner, beside the update rule, the fast set and how the
gradient passes. With no inner steps after it, a start made from the support is the whole of
adapting: a closed-form head (R2-D2), prototypes (ProtoNet), a neural process. With steps after it,
it is a better place to begin: proto-MAML, an amortised start that is then refined.

Every start is written for one task and lifted with the inner loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from raymeta.errors import ConfigError
from raymeta.inner.closed_form import class_means, logistic, ridge
from raymeta.models.base import HasLinearHead, HasRows, TaskModel
from raymeta.types import Examples, Params


class Start(Protocol):
    """How a task's fast weights begin."""

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        """The start's own meta-parameters (may be none), given the model's."""
        ...

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        """The fast weights of one task before its first inner step.

        Args:
            learned: what `init` gave, as it is now.
            params: the model's parameters; those of the fast set are their learned start.
            fast: names of the fast set.
            support: the task's support.
        """
        ...


@dataclass(frozen=True)
class LearnedStart:
    """The same for every task: the meta-parameters of the fast set themselves (MAML)."""

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        del params, fast, generator
        return {}

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        del learned, support
        return {name: params[name] for name in sorted(fast)}


@dataclass(frozen=True)
class RidgeStart:
    """The head by ridge regression on the support (R2-D2).

    Bertinetto et al. 2019, section 3.2: outputs are scale * (X W), with penalty and scale learned.
    Differs from the paper: features carry a column of ones, so that a bias is solved for under the
    same penalty, in place of a learned shift of all outputs, which a softmax does not see.

    Args:
        model: a model with a linear head.
        penalty: start value of the ridge penalty.
        scale: start value of the scale; for classes, what turns regression outputs to logits.
    """

    model: HasLinearHead
    penalty: float = 1.0
    scale: float = 1.0

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        del fast, generator
        like = params[self.model.head_weight]
        return {
            "log_penalty": like.new_tensor(self.penalty).log(),
            "scale": like.new_tensor(self.scale),
        }

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        x, y, mask = _regression(self.model, params, support)
        solved = learned["scale"] * ridge(x, y, mask, learned["log_penalty"].exp())
        return _head(self.model, params, fast, solved)


@dataclass(frozen=True)
class LogisticStart:
    """The head by Newton steps of a logistic regression on the support (LR-D2).

    Bertinetto et al. 2019, section 3.3; one class against the rest where there are several.

    Args:
        model: a model with a linear head and one-hot targets.
        penalty: start value of the penalty, learned.
        num_iterations: Newton steps.
    """

    model: HasLinearHead
    penalty: float = 1.0
    num_iterations: int = 5

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        del fast, generator
        return {"log_penalty": params[self.model.head_weight].new_tensor(self.penalty).log()}

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        x, y, mask = _regression(self.model, params, support)
        penalty = learned["log_penalty"].exp()
        solved = logistic(x, y, mask, penalty, num_iterations=self.num_iterations)
        return _head(self.model, params, fast, solved)


@dataclass(frozen=True)
class PrototypeStart:
    """The head whose logits are -|feature - mean of the class|^2, less |feature|^2.

    Snell, Swersky, Zemel: Prototypical Networks, NeurIPS 2017, eq. 8: weight 2 c_k, bias -|c_k|^2.
    Followed by inner steps it is proto-MAML (Triantafillou et al.: Meta-Dataset, ICLR 2020,
    section 3). A class without support rows has its prototype at the origin.

    Args:
        model: a model with a linear head with a bias, and one-hot targets.
    """

    model: HasLinearHead

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        del params, fast, generator
        return {}

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        del learned
        x, y, mask = _regression(self.model, params, support, ones=False)
        means = class_means(x, y, mask)
        solved = torch.cat([2.0 * means, -means.square().sum(1, keepdim=True)], 1).T
        return _head(self.model, params, fast, solved)


@dataclass(frozen=True)
class AmortisedHead:
    """Each class's head row from the mean feature of its support rows, by a small network.

    weight_k, bias_k = h(c_k), h a residual two-layer network: the per-class amortised classifier of
    Gordon et al. (VERSA, ICLR 2019, eq. 5) and Requeima et al. (CNAPs, NeurIPS 2019, section 2),
    which needs no fixed order of the classes. At the start of training it is `PrototypeStart`.

    Args:
        model: a model with a linear head with a bias, and one-hot targets.
        hidden: width of h.
    """

    model: HasLinearHead
    hidden: int = 64

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        del fast
        weight = params[self.model.head_weight]
        width = weight.shape[1]
        # the output layer starts at 0: the residual is learned on top of the prototypes
        return _mlp_init((width, self.hidden, width + 1), weight, generator, last_is_zero=True)

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        x, y, mask = _regression(self.model, params, support, ones=False)
        means = class_means(x, y, mask)
        start = torch.cat([2.0 * means, -means.square().sum(1, keepdim=True)], 1)
        solved = (start + _mlp(learned, means)).T
        return _head(self.model, params, fast, solved)


@dataclass(frozen=True)
class AmortisedStart:
    """The fast weights from a set encoder of the support: a conditional neural process.

    r = mean over support rows of phi(row); fast = learned start + psi(r), with phi and psi small
    networks (Garnelo et al.: Conditional Neural Processes, ICML 2018, eq. 2-4). With FiLM
    parameters as the fast set it modulates a network by what the support says (CNAPs; TaNP, Lin et
    al. 2021); with a context as the fast set it is the CNP itself. No support: the learned start.

    Args:
        model: a model that gives its support rows.
        hidden: width of phi and psi.
        row_width: width of a row of `model.rows`.
    """

    model: HasRows
    row_width: int
    hidden: int = 128

    def init(self, params: Params, fast: frozenset[str], generator: torch.Generator) -> Params:
        like = params[min(fast)]
        size = sum(params[name].numel() for name in fast)
        widths = (self.row_width, self.hidden, self.hidden)
        encoder = _mlp_init(widths, like, generator)
        decoder = _mlp_init((self.hidden, self.hidden, size), like, generator, last_is_zero=True)
        return {
            **{f"encoder.{n}": v for n, v in encoder.items()},
            **{f"decoder.{n}": v for n, v in decoder.items()},
        }

    def __call__(
        self, learned: Params, params: Params, fast: frozenset[str], support: Examples
    ) -> Params:
        mask = support["mask"].to(params[min(fast)].dtype)
        rows = _mlp(_under("encoder.", learned), self.model.rows(params, support)).relu()
        count = mask.sum()
        summary = (rows * mask[:, None]).sum(0) / count.clamp(min=1.0)
        change = _mlp(_under("decoder.", learned), summary) * count.clamp(max=1.0)
        names = sorted(fast)
        parts = torch.split(change, [params[name].numel() for name in names])
        return {n: params[n] + p.view_as(params[n]) for n, p in zip(names, parts, strict=True)}


def linear_head(model: TaskModel) -> HasLinearHead:
    """`model`, if it has a linear head."""
    if not isinstance(model, HasLinearHead):
        raise ConfigError(
            f"{type(model).__name__} has no linear head to solve for.",
            remedy="Use an algorithm of gradient steps, or a model whose last layer is linear.",
        )
    return model


def _regression(
    model: HasLinearHead, params: Params, support: Examples, *, ones: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (with a column of ones for a bias), targets and mask of one task's support."""
    x, y = model.features(params, support), model.targets(params, support)
    if ones and model.head_bias is not None:
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
    return x, y, support["mask"]


def _head(model: HasLinearHead, params: Params, fast: frozenset[str], solved: Tensor) -> Params:
    """The fast weights with the head's replaced by a solution `[D or D + 1, C]`."""
    weights = {name: params[name] for name in sorted(fast)}
    width = params[model.head_weight].shape[1]
    weights[model.head_weight] = solved[:width].T
    if model.head_bias is not None:
        weights[model.head_bias] = solved[width]
    return weights


def _mlp_init(
    widths: Sequence[int], like: Tensor, generator: torch.Generator, *, last_is_zero: bool = False
) -> Params:
    """A network of linear layers as (in, out) weights, He's start."""
    params: Params = {}
    for layer, (wide, out) in enumerate(pairwise(widths)):
        weight = torch.randn(wide, out, generator=generator) * (2.0 / wide) ** 0.5
        if last_is_zero and layer == len(widths) - 2:
            weight = torch.zeros_like(weight)
        params[f"{layer}.weight"] = weight.to(like)
        params[f"{layer}.bias"] = like.new_zeros(out)
    return params


def _mlp(params: Params, x: Tensor) -> Tensor:
    """The network of `_mlp_init`, ReLU between its layers."""
    num_layers = len(params) // 2
    for layer in range(num_layers):
        x = x @ params[f"{layer}.weight"] + params[f"{layer}.bias"]
        if layer < num_layers - 1:
            x = x.relu()
    return x


def _under(prefix: str, params: Params) -> Params:
    return {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}
