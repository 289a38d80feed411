"""How the outer gradient passes through the inner loop: the third choice behind every learner.

A mode says two things about one task: the objective that its inner loop lowers, and a scalar whose
value is the query loss and whose derivative in the meta-parameters is that mode's meta-gradient.
Because the second is an ordinary scalar, unrolled, implicit and Reptile's differences all reach the
outer step the same way, summed or one a task, by one backward pass.

    Unrolled     through every inner step                       MAML, ANIL, Meta-SGD, MAML++, CAVIA
    FirstOrder   inner gradients held constant                  FOMAML
    Implicit     by the implicit function theorem               iMAML
    Interpolated towards the adapted weights, no query gradient Reptile
    Unadapted    none: the start itself is trained              pooled training, fine-tuned later
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from raymeta.inner.adapt import TaskLoss
from raymeta.inner.linear_solve import conjugate_gradient
from raymeta.inner.schedules import multi_step_weights
from raymeta.types import Params


@dataclass(frozen=True)
class InnerProblem:
    """One task, ready to be adapted.

    Attributes:
        start: fast weights before the first step.
        objective: what the inner loop lowers, as a function of the fast weights.
        query_loss: what the adapted weights are judged by.
        descend: the iterates of the inner loop from `start`; given whether inner gradients are
            held constant.
    """

    start: Params
    objective: TaskLoss
    query_loss: TaskLoss
    descend: Callable[[bool], Iterator[Params]]

    def solved(self) -> Params:
        """The last iterate, as a constant."""
        with torch.no_grad():
            return detached(last(self.descend(True)))


class GradientMode(Protocol):
    """How the outer gradient passes through the inner loop.

    Attributes:
        follows_path: whether a problem is only asked for its path and for the query loss along it,
            so that points of the path may be kept in other coordinates (`gram`).
        annealed_until: the outer step from which it no longer changes with the outer step.
    """

    follows_path: ClassVar[bool]

    @property
    def annealed_until(self) -> int: ...

    def objective(self, support_loss: TaskLoss, start: Params) -> TaskLoss:
        """The inner objective of a task: its support loss, and what the mode adds to it."""
        ...

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        """The query loss of one task, differentiable in the meta-parameters by this mode.

        Args:
            problem: the task.
            outer_step: from 0, for what is annealed over the outer loop; None after annealing.
        """
        ...


class _PlainObjective:
    follows_path: ClassVar[bool] = False

    @property
    def annealed_until(self) -> int:
        return 0

    def objective(self, support_loss: TaskLoss, start: Params) -> TaskLoss:
        del start
        return support_loss


@dataclass(frozen=True)
class Unrolled(_PlainObjective):
    """Through every inner step (MAML: Finn, Abbeel, Levine 2017, eq. 1 and algorithm 2).

    The two annealings are those of MAML++ (Antoniou et al. 2019, section 4); at their defaults
    neither is there.

    Args:
        second_order_from: outer step before which inner gradients are held constant
            (derivative-order annealing).
        multi_step_until: outer step until which the query loss after every inner step counts, with
            weights that move to the last step by then (multi-step loss).
    """

    second_order_from: int = 0
    multi_step_until: int = 0
    follows_path: ClassVar[bool] = True

    @property
    def annealed_until(self) -> int:
        return max(self.second_order_from, self.multi_step_until)

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        first_order = outer_step is not None and outer_step < self.second_order_from
        if outer_step is None or outer_step >= self.multi_step_until:
            return problem.query_loss(last(problem.descend(first_order)))
        path = list(problem.descend(first_order))
        weights = multi_step_weights(
            max(1, len(path) - 1), outer_step=outer_step, until=self.multi_step_until
        )
        return _weighted([problem.query_loss(w) for w in path[-len(weights) :]], weights)


@dataclass(frozen=True)
class FirstOrder(_PlainObjective):
    """With the inner gradients held constant (FOMAML: Finn et al. 2017, section 5.2)."""

    follows_path: ClassVar[bool] = True

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        del outer_step
        return problem.query_loss(last(problem.descend(True)))


@dataclass(frozen=True)
class Implicit:
    """By the implicit function theorem at the end of the inner loop (iMAML).

    Rajeswaran, Finn, Kakade, Levine: Meta-Learning with Implicit Gradients, NeurIPS 2019, eq. 3
    (the proximal inner objective) and lemma 1. With G(w) = support loss + proximal/2 |w - start|^2
    and w its minimum, dw = - (d2G/dw2)^-1 d(dG/dw), so that for every meta-parameter p

        d query(w) / dp = query_p - v . d(G_w)/dp,    v = (G_ww)^-1 query_w

    with v from `num_cg_iterations` products with the Hessian. Memory does not grow with the number
    of inner steps; the gradient is right as far as the inner loop has converged. Goes beyond the
    paper: parameters that are not fast, and a loss's own, get their implicit gradient too.

    Args:
        proximal: weight of the pull to the start (lambda in the paper); G must be convex near w.
        num_cg_iterations: conjugate-gradient iterations.
        damping: v = (1 + damping/proximal) (G_ww + damping I)^-1 query_w, which keeps the system
            positive definite where G is not convex, as the loss of a network is not, and leaves v
            as it is where the support loss is flat (the authors' code has it; the paper does not).
    """

    proximal: float
    num_cg_iterations: int = 5
    damping: float = 0.0
    follows_path: ClassVar[bool] = False

    @property
    def annealed_until(self) -> int:
        return 0

    def objective(self, support_loss: TaskLoss, start: Params) -> TaskLoss:
        def objective(fast: Params) -> Tensor:
            distance = torch.stack([(w - start[n]).square().sum() for n, w in fast.items()]).sum()
            return support_loss(fast) + 0.5 * self.proximal * distance

        return objective

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        del outer_step
        solved = problem.solved()
        slope = torch.func.grad(problem.objective)
        with torch.no_grad():
            # the Hessian is symmetric, so a vector-Jacobian product is its product
            pull_back = torch.func.vjp(slope, solved)[1]

            def product(v: Params) -> Params:
                return {n: h + self.damping * v[n] for n, h in pull_back(v)[0].items()}

            direction = conjugate_gradient(
                product,
                torch.func.grad(problem.query_loss)(solved),
                num_iterations=self.num_cg_iterations,
            )
        scale = 1.0 + self.damping / self.proximal
        implicit = scale * inner_product(detached(direction), slope(solved))
        return problem.query_loss(solved) - without_value(implicit)


@dataclass(frozen=True)
class Interpolated(_PlainObjective):
    """The start moves towards the adapted weights (Reptile).

    Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018, algorithm 2: the
    meta-gradient of the start is start - adapted. The query set is not looked at, but for the loss
    that is reported and for parameters that are not fast, which get its plain gradient. Differs
    from the paper: a task that is divided gives its support only; give a task's rows as support to
    use them all.
    """

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        del outer_step
        solved = problem.solved()
        difference = {name: w.detach() - solved[name] for name, w in problem.start.items()}
        towards = inner_product(difference, problem.start)
        return problem.query_loss(solved) + without_value(towards)


@dataclass(frozen=True)
class Unadapted(_PlainObjective):
    """The query loss of the start itself: ordinary training on all tasks pooled.

    Adapting such a start is warm-start fine-tuning, the baseline that meta-learning has to beat.
    """

    def query_loss(self, problem: InnerProblem, outer_step: int | None) -> Tensor:
        del outer_step
        return problem.query_loss(problem.start)


def last(path: Iterator[Params]) -> Params:
    """The end of an inner loop; what came before it is let go as it runs."""
    fast = next(path)
    for fast in path:  # noqa: B007
        pass
    return fast


def detached(params: Params) -> Params:
    """The same values as constants."""
    return {name: value.detach() for name, value in params.items()}


def inner_product(a: Params, b: Params) -> Tensor:
    """The sum over names of <a, b>."""
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()


def without_value(scalar: Tensor) -> Tensor:
    """Zero, with the derivative of `scalar`."""
    return scalar - scalar.detach()


def _weighted(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([loss * w for loss, w in zip(losses, weights, strict=True)]).sum()
