"""Update rules: how fast weights move along an inner gradient.

A rule is pure functions over named tensors. What a rule learns (its rates) is part of the
meta-parameters and is given to every update; what it remembers from step to step (momentum) is a
value that is passed in and returned. Wrappers (`clipped`, `stopped_early`) make a rule of a rule.

Every rule has a second derivative everywhere: a square root never sees a bare zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raymeta.types import Params

Update = Callable[[Params, Params, Params, Params, int], tuple[Params, Params]]
"""(learned rates, memory, fast weights, gradients, inner step from 0) -> (fast weights, memory)."""


def _nothing(_fast: Params) -> Params:
    return {}


@dataclass(frozen=True)
class UpdateRule:
    """How an inner step moves the fast weights.

    Attributes:
        update: one step.
        init: fast weights -> the rule's own meta-parameters (may be none).
        memory: fast weights -> what the rule remembers before the first step (may be nothing).
        rate: where a step is exactly `w - rate * g` with one number a tensor, that number, from
            (learned rates, name, inner step): what execution forms that keep accumulated deltas
            instead of weights need. None for every other rule.
    """

    update: Update
    init: Callable[[Params], Params] = _nothing
    memory: Callable[[Params], Params] = _nothing
    rate: Callable[[Params, str, int], Tensor | float] | None = None


def sgd(lr: float) -> UpdateRule:
    """w <- w - lr * g, with one fixed rate (MAML, Finn et al. 2017, eq. 1)."""

    def update(
        _learned: Params, memory: Params, fast: Params, gradients: Params, _step: int
    ) -> tuple[Params, Params]:
        moved = {name: torch.sub(w, gradients[name], alpha=lr) for name, w in fast.items()}
        return moved, memory

    return UpdateRule(update, rate=lambda _learned, _name, _step: lr)


def learned_rates(lr: float) -> UpdateRule:
    """w <- w - a * g, with a rate `a` learned for each element (Meta-SGD, Li et al. 2017, eq. 2).

    Differs from the paper: the start value is one number for all elements instead of a draw from
    [0.005, 0.1], so that a run with zero outer steps equals `sgd(lr)`. As in the paper a rate may
    become negative.
    """

    def update(
        learned: Params, memory: Params, fast: Params, gradients: Params, _step: int
    ) -> tuple[Params, Params]:
        moved = {
            name: torch.addcmul(w, learned[name], gradients[name], value=-1.0)
            for name, w in fast.items()
        }
        return moved, memory

    def init(fast: Params) -> Params:
        return {name: torch.full_like(w, lr) for name, w in fast.items()}

    return UpdateRule(update, init=init)


def learned_rates_per_layer_and_step(lr: float, *, num_steps: int) -> UpdateRule:
    """w <- w - a_k * g, a rate learned for each tensor and inner step k (LSLR, MAML++).

    Antoniou, Edwards, Storkey: How to train your MAML, ICLR 2019, section 4. A step past
    `num_steps` (adapting longer than in training) uses the last rate.
    """

    def rate(learned: Params, name: str, step: int) -> Tensor:
        return learned[name][min(step, num_steps - 1)]

    def update(
        learned: Params, memory: Params, fast: Params, gradients: Params, step: int
    ) -> tuple[Params, Params]:
        moved = {
            name: torch.addcmul(w, rate(learned, name, step), gradients[name], value=-1.0)
            for name, w in fast.items()
        }
        return moved, memory

    def init(fast: Params) -> Params:
        return {name: w.new_full((max(1, num_steps),), lr) for name, w in fast.items()}

    return UpdateRule(update, init=init, rate=rate)


def momentum(lr: float, *, decay: float = 0.9) -> UpdateRule:
    """m <- decay * m + g; w <- w - lr * m (Polyak's heavy ball, as torch.optim.SGD has it)."""

    def update(
        _learned: Params, memory: Params, fast: Params, gradients: Params, _step: int
    ) -> tuple[Params, Params]:
        memory = {name: torch.add(gradients[name], m, alpha=decay) for name, m in memory.items()}
        moved = {name: torch.sub(w, memory[name], alpha=lr) for name, w in fast.items()}
        return moved, memory

    return UpdateRule(update, memory=lambda fast: {n: torch.zeros_like(w) for n, w in fast.items()})


def adam(
    lr: float, *, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-3
) -> UpdateRule:
    """w <- w - lr * m / sqrt(v + epsilon^2), m and v corrected for their start at zero.

    Kingma, Ba: Adam, ICLR 2015, algorithm 1. Differs from it: epsilon stands inside the root,
    since the derivative of sqrt(v) is infinite where a gradient is 0 (a dead unit), and is larger
    than usual, since the derivative of a step in a small gradient is lr / epsilon.
    """
    first, second = betas

    def update(
        _learned: Params, memory: Params, fast: Params, gradients: Params, step: int
    ) -> tuple[Params, Params]:
        moved: Params = {}
        kept: Params = {}
        for name, w in fast.items():
            g = gradients[name]
            m = first * memory[f"m.{name}"] + (1.0 - first) * g
            v = second * memory[f"v.{name}"] + (1.0 - second) * g * g
            kept[f"m.{name}"], kept[f"v.{name}"] = m, v
            scale = (v / (1.0 - second ** (step + 1)) + epsilon**2).rsqrt()
            moved[name] = w - (lr / (1.0 - first ** (step + 1))) * m * scale
        return moved, kept

    def memory(fast: Params) -> Params:
        return {f"{kind}.{n}": torch.zeros_like(w) for n, w in fast.items() for kind in "mv"}

    return UpdateRule(update, memory=memory)


def clipped(rule: UpdateRule, *, max_norm: float) -> UpdateRule:
    """`rule`, on gradients scaled down to `max_norm` over all fast weights of the task together."""

    def update(
        learned: Params, memory: Params, fast: Params, gradients: Params, step: int
    ) -> tuple[Params, Params]:
        scale = (max_norm / global_norm(gradients)).clamp(max=1.0)
        scaled = {name: g * scale for name, g in gradients.items()}
        return rule.update(learned, memory, fast, scaled, step)

    return replace(rule, update=update, rate=None)


def stopped_early(rule: UpdateRule, *, min_gradient_norm: float) -> UpdateRule:
    """`rule`, until a task's gradient is shorter than `min_gradient_norm`: then it stays there.

    Each task of a batch stops by itself: easy users take fewer steps than hard ones.
    """

    def update(
        learned: Params, memory: Params, fast: Params, gradients: Params, step: int
    ) -> tuple[Params, Params]:
        goes_on = global_norm(gradients) >= min_gradient_norm
        moved, kept = rule.update(learned, memory, fast, gradients, step)
        # memory may advance: weights that stand still have the same gradient at the next step
        return {n: torch.where(goes_on, w, fast[n]) for n, w in moved.items()}, kept

    return replace(rule, update=update, rate=None)


def global_norm(tensors: Params) -> Tensor:
    """The Euclidean norm of all tensors together, with a finite derivative at zero."""
    squares = torch.stack([t.square().sum() for t in tensors.values()]).sum()
    return (squares + torch.finfo(squares.dtype).tiny ** 0.5).sqrt()
