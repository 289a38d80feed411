"""The outer loop in one process: what it takes, what it leaves alone, what it refuses."""

from itertools import islice

import pytest
import torch
from torch import nn

from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.outer import meta_train
from raymeta.data.worlds.base import batches
from raymeta.data.worlds.known import TwoTribes
from raymeta.errors import AdaptationError, ConfigError
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel


def learner(inner_lr: float = 0.1) -> GradientBased:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ModuleModel(nn.Linear(4, 1), squared_error)
    return presets.maml(model, inner_lr=inner_lr, num_inner_steps=2)


def tasks():
    return batches(TwoTribes(), tasks_per_batch=4, seed=0)


def test_it_goes_on_from_given_parameters_and_leaves_them_as_they_are() -> None:
    algorithm = learner()
    first = meta_train(algorithm, tasks(), num_steps=3)
    kept = {n: p.clone() for n, p in first.items()}
    second = meta_train(algorithm, tasks(), num_steps=3, params=first)
    assert all(torch.equal(first[n], p) for n, p in kept.items())
    assert not torch.equal(second["weight"], first["weight"])
    assert not any(p.requires_grad for p in second.values())


def test_the_schedule_scales_the_rate_and_each_step_is_reported() -> None:
    seen: list[tuple[int, float]] = []
    still = meta_train(
        learner(),
        tasks(),
        num_steps=3,
        schedule=lambda _step: 0.0,
        report=lambda step, loss: seen.append((step, loss)),
    )
    start = learner().init(torch.Generator())
    assert all(torch.equal(still[n], p) for n, p in start.items())
    assert [step for step, _ in seen] == [0, 1, 2]
    expected = learner().query_losses(start, next(tasks())).mean()
    assert seen[0][1] == pytest.approx(float(expected), rel=1e-5)


def test_an_outer_step_knows_its_number() -> None:
    """MAML++ at its first outer step is not MAML++ after its annealing."""
    model = learner().model
    annealed = presets.maml_plus_plus(
        model, inner_lr=0.1, num_inner_steps=3, second_order_from=100, multi_step_until=100
    )
    over = presets.maml_plus_plus(model, inner_lr=0.1, num_inner_steps=3)
    losses: list[float] = []
    for algorithm in (annealed, over):
        meta_train(algorithm, tasks(), num_steps=1, report=lambda _s, loss: losses.append(loss))
    assert losses[0] != losses[1]


def test_too_few_batches_and_a_loss_that_is_not_finite_are_errors() -> None:
    with pytest.raises(ConfigError, match="ended after 2 of 5 outer steps"):
        meta_train(learner(), islice(tasks(), 2), num_steps=5)
    with pytest.raises(AdaptationError, match="at outer step 0"):
        meta_train(learner(inner_lr=1e30), tasks(), num_steps=5)
