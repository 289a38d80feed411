"""The parts of the inner loop against closed forms and derivations by hand, in float64.

The task of most tests is a quadratic with curvature A and minimum b, judged by another with
curvature B and minimum c: its adapted weights and every meta-gradient can be written down.
"""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from raymeta.inner import closed_form
from raymeta.inner.adapt import iterates
from raymeta.inner.gradient import (
    FirstOrder,
    GradientMode,
    Implicit,
    InnerProblem,
    Interpolated,
    Unadapted,
    Unrolled,
    last,
)
from raymeta.inner.linear_solve import conjugate_gradient
from raymeta.inner.losses import binary_cross_entropy, cross_entropy, uncertainty_weighted
from raymeta.inner.rules import (
    UpdateRule,
    adam,
    clipped,
    learned_rates,
    learned_rates_per_layer_and_step,
    momentum,
    sgd,
    stopped_early,
)
from raymeta.inner.schedules import cosine, multi_step_weights
from raymeta.types import Params

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -0.3], [-0.3, 3.0]], dtype=torch.float64)
MINIMUM = torch.tensor([1.0, -2.0], dtype=torch.float64)
TARGET = torch.tensor([0.5, 0.7], dtype=torch.float64)
THETA = torch.tensor([0.3, 0.9], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
LR, STEPS = 0.2, 3


def quadratic(curvature: Tensor, minimum: Tensor, w: Tensor) -> Tensor:
    return 0.5 * (w - minimum) @ curvature @ (w - minimum)


def gradient(mode: GradientMode, *, steps: int = STEPS, outer_step: int | None = None) -> Tensor:
    """The mode's meta-gradient in the start of the quadratic task."""

    def loss(theta: Tensor) -> Tensor:
        start = {"w": theta}
        objective = mode.objective(lambda p: quadratic(A, MINIMUM, p["w"]), start)
        problem = InnerProblem(
            start=start,
            objective=objective,
            query_loss=lambda p: quadratic(B, TARGET, p["w"]),
            descend=lambda first_order: iterates(
                objective,
                start,
                rule=sgd(LR),
                learned={},
                num_steps=steps,
                first_order=first_order,
            ),
        )
        return mode.query_loss(problem, outer_step)

    leaf = THETA.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    return found


def adapted(steps: int = STEPS) -> Tensor:
    """w_K = b + (I - lr A)^K (theta - b)."""
    return MINIMUM + torch.linalg.matrix_power(EYE - LR * A, steps) @ (THETA - MINIMUM)


def query_slope(w: Tensor) -> Tensor:
    return B @ (w - TARGET)


def test_unrolled_is_the_hand_derivation() -> None:
    """d/d theta = ((I - lr A)^K)^T B (w_K - c)."""
    expected = torch.linalg.matrix_power(EYE - LR * A, STEPS).T @ query_slope(adapted())
    torch.testing.assert_close(gradient(Unrolled()), expected, rtol=1e-12, atol=1e-12)


def test_first_order_and_annealed_are_the_query_gradient_at_the_adapted_weights() -> None:
    expected = query_slope(adapted())
    torch.testing.assert_close(gradient(FirstOrder()), expected, rtol=1e-12, atol=1e-12)
    annealed = Unrolled(second_order_from=10)
    early, late = gradient(annealed, outer_step=9), gradient(annealed, outer_step=10)
    torch.testing.assert_close(early, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(late, gradient(Unrolled()))
    assert torch.equal(gradient(annealed), gradient(Unrolled()))  # no step: annealing is over


def test_multi_step_loss_is_the_weighted_sum_of_the_steps_gradients() -> None:
    mode = Unrolled(multi_step_until=10)
    weights = multi_step_weights(STEPS, outer_step=4, until=10)
    expected = sum(w * gradient(Unrolled(), steps=k + 1) for k, w in enumerate(weights))
    torch.testing.assert_close(gradient(mode, outer_step=4), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(gradient(mode, outer_step=10), gradient(Unrolled()))


def test_implicit_is_the_closed_form_of_the_proximal_problem() -> None:
    """w* = (A + p I)^-1 (A b + p theta), so d/d theta = p (A + p I)^-1 B (w* - c)."""
    proximal = 1.5
    system = A + proximal * EYE
    solved = torch.linalg.solve(system, A @ MINIMUM + proximal * THETA)
    expected = proximal * torch.linalg.solve(system, query_slope(solved))
    found = gradient(Implicit(proximal=proximal, num_cg_iterations=2), steps=200)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    damped = Implicit(proximal=proximal, num_cg_iterations=2, damping=2.0)
    system = A + (proximal + 2.0) * EYE
    expected = (proximal + 2.0) * torch.linalg.solve(system, query_slope(solved))
    torch.testing.assert_close(gradient(damped, steps=200), expected, rtol=1e-10, atol=1e-12)


def test_reptile_is_the_difference_and_pooled_training_the_gradient_of_the_start() -> None:
    torch.testing.assert_close(gradient(Interpolated()), THETA - adapted(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(Unadapted()), query_slope(THETA), rtol=1e-12, atol=1e-12)


def test_conjugate_gradient_solves_and_then_stays() -> None:
    target = {"a": THETA[:1], "b": THETA[1:]}

    def product(v: Params) -> Params:
        image = A @ torch.cat([v["a"], v["b"]])
        return {"a": image[:1], "b": image[1:]}

    expected = torch.linalg.solve(A, THETA)
    for iterations in (2, 9):
        found = conjugate_gradient(product, target, num_iterations=iterations)
        torch.testing.assert_close(torch.cat([found["a"], found["b"]]), expected)
    zero = conjugate_gradient(product, {"a": 0 * THETA[:1], "b": 0 * THETA[1:]}, num_iterations=3)
    assert not any(v.any() or v.isnan().any() for v in zero.values())


def walk(rule: UpdateRule, steps: int, learned: Params | None = None) -> list[Tensor]:
    """The path of a rule on the quadratic task."""
    path = iterates(
        lambda p: quadratic(A, MINIMUM, p["w"]),
        {"w": THETA},
        rule=rule,
        learned=rule.init({"w": THETA}) if learned is None else learned,
        num_steps=steps,
    )
    return [p["w"] for p in path]


def slope(w: Tensor) -> Tensor:
    return A @ (w - MINIMUM)


def test_momentum_is_torchs() -> None:
    w = THETA.clone().requires_grad_()
    reference = torch.optim.SGD([w], lr=LR, momentum=0.9)
    for expected_step in walk(momentum(LR), 4)[1:]:
        reference.zero_grad()
        quadratic(A, MINIMUM, w).backward()
        reference.step()
        torch.testing.assert_close(expected_step, w.detach(), rtol=1e-12, atol=1e-12)


def test_adam_is_torchs_where_epsilon_is_small_and_differentiable_where_a_gradient_is_zero() -> (
    None
):
    w = THETA.clone().requires_grad_()
    reference = torch.optim.Adam([w], lr=LR, eps=1e-12)
    for found in walk(adam(LR, epsilon=1e-12), 4)[1:]:
        reference.zero_grad()
        quadratic(A, MINIMUM, w).backward()
        reference.step()
        torch.testing.assert_close(found, w.detach(), rtol=1e-8, atol=1e-8)

    def end(theta: Tensor) -> Tensor:
        rule = adam(LR)
        path = iterates(
            lambda p: (p["w"] * torch.tensor([1.0, 0.0]).to(p["w"])).square().sum(),
            {"w": theta},
            rule=rule,
            learned={},
            num_steps=2,
        )
        return last(path)["w"].sum()

    assert torch.autograd.gradcheck(end, THETA.clone().requires_grad_())


def test_learned_rates_start_as_sgd_and_a_step_uses_its_own_rate() -> None:
    plain = walk(sgd(LR), 2)[-1]
    torch.testing.assert_close(walk(learned_rates(LR), 2)[-1], plain)
    by_step = learned_rates_per_layer_and_step(LR, num_steps=2)
    torch.testing.assert_close(walk(by_step, 2)[-1], plain)
    rates = torch.tensor([0.1, 0.3], dtype=torch.float64)
    first, second, third = walk(by_step, 3, {"w": rates})[1:]
    torch.testing.assert_close(first, THETA - 0.1 * slope(THETA))
    torch.testing.assert_close(second, first - 0.3 * slope(first))
    torch.testing.assert_close(third, second - 0.3 * slope(second))  # past the last: the last


def test_a_clipped_step_has_the_given_length_and_a_short_one_is_left() -> None:
    step = walk(clipped(sgd(1.0), max_norm=0.25), 1)[-1] - THETA
    torch.testing.assert_close(step.norm(), torch.tensor(0.25, dtype=torch.float64))
    assert torch.equal(walk(clipped(sgd(LR), max_norm=1e6), 1)[-1], walk(sgd(LR), 1)[-1])


def test_a_task_stops_where_its_gradient_is_short() -> None:
    path = walk(stopped_early(sgd(LR), min_gradient_norm=0.5), 40)
    norms = [float(slope(w).norm()) for w in path]
    stopped = next(k for k, norm in enumerate(norms) if norm < 0.5)
    assert 0 < stopped < 40
    assert all(torch.equal(w, path[stopped]) for w in path[stopped:])
    assert not torch.equal(path[stopped], path[stopped - 1])


@pytest.mark.parametrize("num_rows", [3, 9])
def test_ridge_is_the_normal_equations_in_both_of_its_forms(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    mask = torch.arange(num_rows) != 1
    kept_x, kept_y = x[mask], y[mask]
    system = kept_x.T @ kept_x + 0.7 * torch.eye(5, dtype=torch.float64)
    found = closed_form.ridge(x, y, mask, torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close(found, torch.linalg.solve(system, kept_x.T @ kept_y))


def test_logistic_is_the_minimum_that_a_general_optimiser_finds() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    targets = torch.nn.functional.one_hot(labels, 3).double()
    mask = torch.tensor([True] * 7 + [False])
    penalty = torch.tensor(0.5, dtype=torch.float64)
    found = closed_form.logistic(x, targets, mask, penalty, num_iterations=20)
    for column in range(3):
        target = targets[:7, column]

        def objective(w: np.ndarray, target: Tensor = target) -> float:
            logits = x[:7] @ torch.from_numpy(w)
            rows = binary_cross_entropy(logits, target)
            return float(rows.sum() + 0.25 * (torch.from_numpy(w) ** 2).sum())

        best = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(found[:, column].numpy(), best.x, atol=1e-5)


def test_class_means_are_those_of_the_rows_that_count() -> None:
    x = torch.arange(8, dtype=torch.float64).reshape(4, 2)
    targets = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    found = closed_form.class_means(x, targets, torch.tensor([True, True, True, False]))
    expected = torch.stack([(x[0] + x[2]) / 2, x[1], torch.zeros(2, dtype=torch.float64)])
    torch.testing.assert_close(found, expected)


def test_losses_are_torchs() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (6,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    torch.testing.assert_close(cross_entropy(logits, one_hot), expected)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, one_hot, reduction="none"
    )
    torch.testing.assert_close(binary_cross_entropy(logits, one_hot), expected.mean(1))


def test_uncertainty_weights_are_best_where_the_variance_is_the_loss() -> None:
    """min over s of exp(-s) L + s/2 is at s = log 2L: sigma^2 = 2L."""
    losses = {"a": torch.tensor(0.5), "b": torch.tensor(3.0)}
    zero = {"a": torch.tensor(0.0), "b": torch.tensor(0.0)}
    assert float(uncertainty_weighted(losses, zero)) == pytest.approx(3.5)
    best = {n: (2 * loss).log().requires_grad_() for n, loss in losses.items()}
    slopes = torch.autograd.grad(uncertainty_weighted(losses, best), list(best.values()))
    assert [float(s) for s in slopes] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_schedules_begin_and_end_where_they_should() -> None:
    for step in (0, 3, 10, 99):
        assert sum(multi_step_weights(4, outer_step=step, until=10)) == pytest.approx(1.0)
    assert multi_step_weights(4, outer_step=0, until=10) == pytest.approx((0.25,) * 4)
    assert multi_step_weights(4, outer_step=10, until=10) == (0.0, 0.0, 0.0, 1.0)
    assert multi_step_weights(2, outer_step=0, until=0) == (0.0, 1.0)
    factor = cosine(110, final=0.1, warmup=10)
    assert [factor(0), factor(9), factor(10)] == pytest.approx([0.1, 1.0, 1.0])
    assert [factor(60), factor(110), factor(500)] == pytest.approx([0.55, 0.1, 0.1])
