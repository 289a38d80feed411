"""The Transformer over events: what it may see, what padding changes, and its second derivative."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from raymeta.models.attention import gap_bucket
from raymeta.models.next_items import SequenceBody
from raymeta.types import Examples

WIDTH, ROWS = 6, 5
AGES = (9.0, 4.0, 4.0, 1.0, 0.0)  # four moments, two rows in the second


def body(**options: object) -> SequenceBody:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SequenceBody(
            item_dim=WIDTH, dim=8, num_layers=2, num_heads=2, num_event_types=3, **options
        ).double()
        for parameter in made.parameters():  # off the zeros that some of them start at
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


def vectors(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64)


def rows(ages: tuple[float, ...] = AGES) -> Examples:
    age = torch.tensor(ages, dtype=torch.float64)
    return {
        "event_type": torch.arange(len(ages)) % 3,
        "count": torch.ones(len(ages), dtype=torch.float64) + (torch.arange(len(ages)) == 1),
        "age_days": age,
        "mask": torch.ones(len(ages), dtype=torch.bool),
    }


def taken(support: Examples, order: list[int]) -> Examples:
    return {name: value[order] for name, value in support.items()}


@pytest.mark.parametrize("changed", range(ROWS))
def test_a_row_changes_only_what_is_predicted_after_its_moment(changed: int) -> None:
    x, support = vectors(ROWS), rows()
    before = body()(x, support, each_row=True)
    other = x.clone()
    other[changed] = 5.0
    after = body()(other, support, each_row=True)
    moved = (before != after).any(-1)
    assert moved.tolist() == [age < AGES[changed] for age in AGES] + [True]


def test_what_comes_later_changes_nothing_that_was_predicted_before() -> None:
    x, support = vectors(ROWS), rows()
    seen = taken(support, [0, 1, 2])
    seen["age_days"] = seen["age_days"] - 4.0  # against the last event that was there then
    torch.testing.assert_close(
        body()(x[:3], seen, each_row=True)[:3], body()(x, support, each_row=True)[:3]
    )


def test_order_within_a_moment_and_padding_change_nothing() -> None:
    x, support = vectors(ROWS), rows()
    expected = body()(x, support)
    swapped = [0, 2, 1, 3, 4]
    torch.testing.assert_close(body()(x[swapped], taken(support, swapped)), expected)
    padded = {n: torch.cat([v, torch.zeros_like(v[:3])]) for n, v in support.items()}
    wider = torch.cat([x, vectors(3, seed=7)])
    torch.testing.assert_close(body()(wider, padded), expected)
    each = body()(wider, padded, each_row=True)
    torch.testing.assert_close(each[:ROWS], body()(x, support, each_row=True)[:ROWS])


def test_time_counts_as_differences() -> None:
    x, support = vectors(ROWS), rows()
    later = {**support, "age_days": support["age_days"] + 100.0}
    torch.testing.assert_close(body()(x, later), body()(x, support))
    stretched = {**support, "age_days": support["age_days"] * 50.0}
    assert not torch.allclose(body()(x, stretched), body()(x, support))


def test_gaps_are_told_apart_by_doublings_of_an_hour() -> None:
    hours = torch.tensor([-1.0, 0.0, 0.9, 1.0, 3.0, 1e9])
    assert gap_bucket(hours / 24.0).tolist() == [0, 0, 0, 1, 2, 19]


def test_users_in_a_batch_have_what_each_has_alone() -> None:
    supports = [rows(), rows((3.0, 3.0, 2.0, 0.0, 0.0))]
    batch = {n: torch.stack([s[n] for s in supports]) for n in supports[0]}
    x = vectors(2, ROWS)
    together = body()(x, batch, each_row=True)
    for row, support in enumerate(supports):
        torch.testing.assert_close(together[row], body()(x[row], support, each_row=True))


def test_activations_computed_again_give_the_same_gradient() -> None:
    x, support = vectors(ROWS), rows()
    found = []
    for recompute in (False, True):
        made = body(recompute=recompute)
        made(x, support).square().sum().backward()
        found.append({name: p.grad for name, p in made.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_second_derivative_under_vmap_is_that_of_finite_differences() -> None:
    made, support, x = body(), rows(), vectors(3, ROWS)
    name = "encoder.blocks.0.attention.query.weight"
    weight = dict(made.named_parameters())[name].detach()
    step = torch.randn(
        weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    def loss(w: Tensor, x: Tensor) -> Tensor:
        found: Tensor = functional_call(made, {name: w}, (x, support))
        return found.square().sum()

    def slopes(w: Tensor) -> Tensor:
        gradient = torch.func.vmap(torch.func.grad(loss), (None, 0))(w, x)
        return (gradient * step).sum((-2, -1))

    found = torch.func.grad(lambda w: slopes(w).sum())(weight)
    h = 1e-4
    ahead, behind = slopes(weight + h * step).sum(), slopes(weight - h * step).sum()
    torch.testing.assert_close(
        (found * step).sum(), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7
    )


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="dim=8 is not a multiple of num_heads=3"):
        SequenceBody(item_dim=4, dim=8, num_layers=1, num_heads=3, num_event_types=1)
