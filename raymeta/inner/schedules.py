"""Values that change over the outer loop, as pure functions of the outer step."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Outer step, from 0 -> a factor on the outer rate."""


def multi_step_weights(num_inner_steps: int, *, outer_step: int, until: int) -> tuple[float, ...]:
    """How much the query loss after each inner step counts; they sum to 1.

    At outer step 0 each counts the same; by `until` only the last does, and the way between is
    linear (multi-step loss of MAML++: Antoniou et al. 2019, section 4. Its code keeps 0.03 / K of
    the earlier steps for ever; here nothing is left of them).

    Returns:
        One weight an inner step, `[num_inner_steps]`.
    """
    left = max(0.0, 1.0 - outer_step / until) if until else 0.0
    earlier = left / num_inner_steps
    return (*[earlier] * (num_inner_steps - 1), 1.0 - earlier * (num_inner_steps - 1))


def constant(_outer_step: int) -> float:
    """The outer rate as it was given."""
    return 1.0


def cosine(num_steps: int, *, final: float = 0.0, warmup: int = 0) -> Schedule:
    """From 1 down to `final` along half a cosine over `num_steps`, after a linear warm-up.

    The outer rate of MAML++ (section 4), after Loshchilov, Hutter: SGDR, ICLR 2017, eq. 5.
    """

    def factor(outer_step: int) -> float:
        if outer_step < warmup:
            return (outer_step + 1) / warmup
        done = min(1.0, (outer_step - warmup) / max(1, num_steps - warmup))
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor
