"""The regression of ratings in float64: the posterior by hand, exact leaving out, the staircase."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raymeta.algorithms import presets
from raymeta.models.rating_regression import RatedItems, RatingRegression
from raymeta.types import Examples, Params, TaskBatch

NUM_ITEMS, NUM_ROWS = 7, 4
LEVELS = torch.arange(1.0, 6.0).double()


def items(*, levels: torch.Tensor = LEVELS) -> RatedItems:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, NUM_ROWS, (NUM_ITEMS, 2), generator=generator)
    counts = torch.randint(1, 9, (NUM_ITEMS,), generator=generator).double()
    totals = counts * torch.randn(NUM_ITEMS, generator=generator).double()
    return RatedItems(
        index=index,
        weight=torch.full((NUM_ITEMS, 2), 0.5).double(),
        counts=torch.stack([counts, totals], 1),
        mean=torch.tensor(3.4).double(),
        log_count=torch.log1p(counts).mean(),
        levels=levels,
        num_rows=NUM_ROWS,
        vectors=torch.randn(3, NUM_ITEMS, 2, generator=generator).double(),
    )


def params_of(model: RatingRegression) -> Params:
    generator = torch.Generator().manual_seed(1)
    start = model.init(generator)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator).double()
        for name, value in start.items()
    }


def rows(item: list[int], value: list[float], *, width: int = 5) -> Examples:
    padding = width - len(item)
    return {
        "item": torch.tensor([item + [0] * padding]),
        "value": torch.tensor([value + [0.0] * padding]).double(),
        "mask": torch.tensor([[True] * len(item) + [False] * padding]),
    }


def test_adapting_gives_the_posterior_mean_of_a_bayesian_regression() -> None:
    model = RatingRegression(items())
    params = params_of(model)
    support = rows([2, 5, 3], [4.0, 1.0, 5.0])
    state = presets.ridge(model).adapt({**params, **_start(1.0)}, support)
    one = {name: value[0, :3] for name, value in support.items()}
    mean, z, noise = (part.numpy() for part in model._rows(params, one))
    prior, likelihood = np.eye(z.shape[1]), z.T @ np.diag(noise**-2)
    expected = np.linalg.inv(prior + likelihood @ z) @ likelihood @ (one["value"].numpy() - mean)
    np.testing.assert_allclose(state["taste"][0, 0].numpy(), expected, rtol=1e-10)


def test_the_ridge_start_is_where_the_support_loss_is_least() -> None:
    model = RatingRegression(items())
    params = params_of(model)
    support = rows([2, 5, 3], [4.0, 1.0, 5.0])
    state = presets.ridge(model).adapt({**params, **_start(1.0)}, support)
    one = {name: value[0] for name, value in support.items()}
    taste = state["taste"][0].requires_grad_()
    loss = model.support_loss({**params, "taste": taste}, {}, one)
    (gradient,) = torch.autograd.grad(loss, taste)
    assert gradient.abs().max() < 1e-10


def test_a_counted_row_is_what_it_would_be_had_it_not_been_counted() -> None:
    all_items = items()
    without = all_items.counts.clone()
    without[2] -= torch.tensor([1.0, 0.7])
    model = RatingRegression(all_items)
    params = params_of(model)
    row = {"item": torch.tensor([2, 4])}
    taken_out = {
        "counted": torch.tensor([1.0, 0.0]).double(),
        "counted_value": torch.tensor([0.7, 0.0]).double(),
    }
    found = model._rows(params, {**row, **taken_out})
    expected = RatingRegression(replace(all_items, counts=without))._rows(params, row)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], model._rows(params, row)[0])


def test_no_ratings_are_the_prior_and_an_unknown_rating_says_nothing() -> None:
    model = RatingRegression(items())
    algorithm = presets.ridge(model)
    params = {**params_of(model), **_start(1.0)}
    nobody = algorithm.adapt(params, rows([], []))
    unknown = algorithm.adapt(params, rows([3, 1], [0.0, 0.0]))
    assert torch.equal(nobody["taste"], torch.zeros_like(nobody["taste"]))
    assert torch.equal(unknown["taste"], nobody["taste"])


def test_the_staircase_has_its_steps_at_the_thresholds() -> None:
    model = RatingRegression(items())
    params = model.init(torch.Generator())
    params["log_step_width"] = torch.tensor(-5.0).double()
    at = torch.tensor([0.0, 1.4, 1.6, 3.4, 4.6, 9.0]).double()
    expected = torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0, 5.0]).double()
    torch.testing.assert_close(model._staircase(params, at), expected, atol=1e-4, rtol=0)
    plain = RatingRegression(items(levels=LEVELS[:0]))
    torch.testing.assert_close(plain._staircase(plain.init(torch.Generator()), at), at)


@pytest.mark.parametrize("outer_loss", ["error", "order"])
def test_the_meta_gradient_is_that_of_finite_differences(outer_loss: str) -> None:
    model = RatingRegression(items(), outer_loss=outer_loss)  # type: ignore[arg-type]
    algorithm = presets.ridge(model)
    params = {**params_of(model), **_start(1.3)}
    batch = TaskBatch(rows([2, 5, 3], [4.0, 1.0, 5.0]), rows([0, 1, 6], [2.0, 5.0, 3.0]))
    gradients = algorithm.meta_gradient(params, batch).gradients
    generator = torch.Generator().manual_seed(3)
    for name, value in params.items():
        direction = torch.randn(value.shape, generator=generator).double()
        step = 1e-6
        ends = [
            algorithm.query_losses({**params, name: value + sign * step * direction}, batch).sum()
            for sign in (1.0, -1.0)
        ]
        expected = float(ends[0] - ends[1]) / (2 * step)
        assert float((gradients[name] * direction).sum()) == pytest.approx(expected, abs=1e-6)


def _start(penalty: float) -> Params:
    return {
        "start.log_penalty": torch.tensor(penalty).double().log(),
        "start.scale": torch.tensor(1.0).double(),
    }
