"""Losses of several scenarios weighed by closed forms, and worlds where sharing helps or does not.

In the worlds a user is a vector c of two numbers. Scenario `a` asks for <P x, c> and has many
users. Where `b` is alike it has few, and P must be learned, which few users do not allow; where it
is unlike (the same <w, x> for everybody) it has as many.
"""

import pytest
import torch
from torch import Tensor

from raymeta.algorithms import presets
from raymeta.algorithms.outer import meta_train
from raymeta.models.base import masked_mean
from raymeta.models.multi_task import LOG_VARIANCE, MultiTask, joined_queries
from raymeta.types import Examples, Params, TaskBatch

INPUTS, WIDTH, ROWS = 12, 2, 16
USERS, USERS_OF_B = 48, 6


class Linear:
    """y_a = <body x, context>; y_b = gate y_a + <own, x>. Adapted on rows of `a`."""

    adaptable = head = frozenset({"context"})

    def init(self, generator: torch.Generator) -> Params:
        return {
            "context": torch.zeros(WIDTH),
            "body": 0.5 * torch.randn(WIDTH, INPUTS, generator=generator),
            "gate": torch.ones(()),
            "own": torch.zeros(INPUTS),
        }

    def tables(self) -> Params:
        return {}

    def shared(self, params: Params) -> Params:
        return {}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        return self.loss_a(params, shared, support, support)

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        raise AssertionError("the losses are named")

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        raise AssertionError("nothing is ranked")

    def loss_a(self, params: Params, _: Params, __: Examples, query: Examples) -> Tensor:
        error = query["x"] @ params["body"].T @ params["context"] - query["y"]
        return masked_mean(error.square(), query["mask"])

    def loss_b(self, params: Params, _: Params, __: Examples, query: Examples) -> Tensor:
        found = query["x"] @ params["body"].T @ params["context"]
        error = params["gate"] * found + query["x"] @ params["own"] - query["y"]
        return masked_mean(error.square(), query["mask"])


def world(users: int, asked_b: int, *, related: bool, seed: int) -> TaskBatch:
    """Tasks of the world; the first `asked_b` users have queries of `b`."""
    fixed = torch.Generator().manual_seed(7)
    projection = torch.randn(WIDTH, INPUTS, generator=fixed) / INPUTS**0.5
    common = torch.randn(INPUTS, generator=fixed) / INPUTS**0.5
    generator = torch.Generator().manual_seed(seed)
    taste = torch.randn(users, WIDTH, generator=generator)

    def rows() -> Examples:
        x = torch.randn(users, ROWS, INPUTS, generator=generator)
        y = ((x @ projection.T) @ taste[:, :, None])[..., 0]
        return {"x": x, "y": y, "mask": torch.ones(users, ROWS, dtype=torch.bool)}

    queries = {"a": rows(), "b": rows()}
    if not related:
        queries["b"]["y"] = queries["b"]["x"] @ common
    noise = torch.randn(users, ROWS, generator=generator)
    queries["b"]["y"] = queries["b"]["y"] + 0.3 * noise
    queries["b"]["mask"] &= (torch.arange(users) < asked_b)[:, None]
    return TaskBatch(rows(), joined_queries(queries))


def error_of_b(names: tuple[str, ...], *, related: bool) -> float:
    """Squared error in `b` of new users, after training for the scenarios `names`."""
    model = Linear()
    losses = {"a": model.loss_a, "b": model.loss_b}
    trained = MultiTask(model, {name: losses[name] for name in names})
    learner = presets.cavia(trained, inner_lr=0.5, num_inner_steps=2)
    users_of_b = USERS_OF_B if related else USERS
    batch = world(USERS, users_of_b, related=related, seed=0)
    if names == ("b",):  # who has no query of it is not among its tasks
        batch = TaskBatch(
            {name: value[:users_of_b] for name, value in batch.support.items()},
            {name: value[:users_of_b] for name, value in batch.query.items()},
        )
    steps = iter(lambda: batch, None)
    params = meta_train(learner, steps, num_steps=60, outer_lr=0.05)
    judged = presets.cavia(
        MultiTask(model, {"b": model.loss_b}, weights=(1.0,)), inner_lr=0.5, num_inner_steps=2
    )
    new = world(200, 200, related=related, seed=1)
    own = {name: value for name, value in params.items() if name != LOG_VARIANCE}
    return float(judged.query_losses(own, new).mean())


def test_a_scenario_with_few_users_gains_from_one_with_many_that_is_alike() -> None:
    alone, together = error_of_b(("b",), related=True), error_of_b(("a", "b"), related=True)
    # .09 is the noise
    assert together < 0.6 * alone
    assert together < 0.5


def test_one_that_is_unlike_costs_at_most_a_tenth() -> None:
    alone, together = error_of_b(("b",), related=False), error_of_b(("a", "b"), related=False)
    assert together < 1.1 * alone


@pytest.fixture
def batch() -> TaskBatch:
    return world(8, 8, related=True, seed=3)


def test_with_one_scenario_of_weight_one_the_loss_is_its_own(batch: TaskBatch) -> None:
    model = Linear()
    params = model.init(torch.Generator().manual_seed(0))
    task = {name: value[0] for name, value in batch.query.items()}
    own = {name.removeprefix("a/"): value for name, value in task.items() if name[:2] == "a/"}
    found = MultiTask(model, {"a": model.loss_a}, weights=(1.0,)).query_loss(params, {}, {}, task)
    torch.testing.assert_close(found, model.loss_a(params, {}, {}, own))


def test_a_learned_weight_is_one_over_twice_the_loss(batch: TaskBatch) -> None:
    model = Linear()
    both = MultiTask(model, {"a": model.loss_a, "b": model.loss_b})
    learner = presets.cavia(both, inner_lr=0.1, num_inner_steps=1)
    params = learner.init(torch.Generator().manual_seed(0))
    losses = [
        presets.cavia(MultiTask(model, {n: loss}, weights=(1.0,)), inner_lr=0.1, num_inner_steps=1)
        .query_losses({n: p for n, p in params.items() if n != LOG_VARIANCE}, batch)
        .mean()
        for n, loss in (("a", model.loss_a), ("b", model.loss_b))
    ]
    params[LOG_VARIANCE] = torch.log(2.0 * torch.stack(losses))
    found = learner.meta_gradient(params, batch).gradients[LOG_VARIANCE]
    torch.testing.assert_close(found, torch.zeros(2), atol=1e-4, rtol=0.0)
    params[LOG_VARIANCE] = params[LOG_VARIANCE] + 0.5
    assert bool((learner.meta_gradient(params, batch).gradients[LOG_VARIANCE] > 0).all())


def test_what_weighs_the_losses_is_not_served() -> None:
    model = Linear()
    learner = presets.cavia(
        MultiTask(model, {"a": model.loss_a, "b": model.loss_b}), inner_lr=0.1, num_inner_steps=1
    )
    served, params = learner.served(learner.init(torch.Generator().manual_seed(0)))
    assert served.model is model
    assert set(params) == {"context", "body", "gate", "own"}
