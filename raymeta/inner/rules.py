"""Update rules: how fast weights move along an inner gradient.

A rule is a pair of pure functions over named tensors. What a rule learns (its rates) is part of the
meta-parameters and is given to every update; a rule remembers nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from raymeta.types import Params


@dataclass(frozen=True)
class UpdateRule:
    """How one inner step moves the fast weights.

    Attributes:
        init: fast weights -> the rule's own meta-parameters (may be none).
        update: (rule parameters, fast weights, gradients) -> new fast weights.
    """

    init: Callable[[Params], Params]
    update: Callable[[Params, Params, Params], Params]


def sgd(lr: float) -> UpdateRule:
    """w <- w - lr * g, with one fixed rate (MAML, Finn et al. 2017, eq. 1)."""

    def update(_rule: Params, fast: Params, gradients: Params) -> Params:
        return {name: torch.sub(w, gradients[name], alpha=lr) for name, w in fast.items()}

    return UpdateRule(init=lambda _fast: {}, update=update)


def learned_rates(lr: float) -> UpdateRule:
    """w <- w - a * g, with a rate `a` learned for each element (Meta-SGD, Li et al. 2017, eq. 2).

    Differs from the paper: the start value is one number for all elements instead of a draw from
    [0.005, 0.1], so that a run with zero outer steps equals `sgd(lr)`. As in the paper a rate may
    become negative.
    """

    def init(fast: Params) -> Params:
        return {name: torch.full_like(w, lr) for name, w in fast.items()}

    def update(rule: Params, fast: Params, gradients: Params) -> Params:
        return {name: w - rule[name] * gradients[name] for name, w in fast.items()}

    return UpdateRule(init=init, update=update)
