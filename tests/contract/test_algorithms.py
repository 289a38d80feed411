"""One table of meta-learners; every row must pass every check that its kind promises.

The problem is small, smooth (tanh) and in float64, so that derivatives can be measured. Learning is
judged on worlds whose answer is known: tribes that only adapting can tell apart, and labels that
are independent of everything.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raymeta.adapters.context import with_context
from raymeta.adapters.film import with_film
from raymeta.adapters.lora import with_lora
from raymeta.algorithms import presets
from raymeta.algorithms.bound import bind
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.outer import meta_train
from raymeta.data.worlds.base import TaskSource, batches
from raymeta.data.worlds.known import Null, TwoTribes
from raymeta.inner.losses import cross_entropy, squared_error
from raymeta.inner.rules import adam, clipped, momentum, stopped_early
from raymeta.models.module import ModuleModel
from raymeta.types import Examples, Params, TaskBatch

WIDTH, HIDDEN = 4, 6
STEPS = {"inner_lr": 0.05, "num_inner_steps": 3}


def network(num_outputs: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, num_outputs))


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def plain() -> ModuleModel:
    return ModuleModel(network(), squared_error)


def classifier() -> ModuleModel:
    return ModuleModel(network(num_outputs=2), cross_entropy)


def contextual() -> ModuleModel:
    net = with_context(network(), ["0"], size=3, generator=draw())
    return ModuleModel(net, squared_error)


def filmed() -> ModuleModel:
    return ModuleModel(with_film(network(), ["0"]), squared_error)


def low_rank() -> ModuleModel:
    return ModuleModel(with_lora(network(), ["0"], rank=2, generator=draw()), squared_error)


@dataclass(frozen=True)
class Row:
    """An algorithm and what it promises.

    Attributes:
        make: the learner on the small problem.
        exact: its meta-gradient is the derivative of its query loss, for any number of steps.
        descends: it begins at the learned start, and inner steps lower the support loss.
        solved: it makes its head from the support alone: the head's own start is not learned.
        classify: it is judged on the worlds of classes.
    """

    make: Callable[[], GradientBased]
    exact: bool = True
    descends: bool = True
    solved: bool = False
    classify: bool = False

    @property
    def tribes(self) -> TwoTribes:
        return TwoTribes(width=WIDTH, classify=self.classify)

    @property
    def null(self) -> Null:
        return Null(width=WIDTH, classify=self.classify)


def with_rule(rule: Callable[[float], object]) -> Callable[[], GradientBased]:
    return lambda: replace(presets.maml(plain(), **STEPS), rule=rule(0.05))


TABLE = {
    "maml": Row(lambda: presets.maml(plain(), **STEPS)),
    "fomaml": Row(lambda: presets.fomaml(plain(), **STEPS), exact=False),
    "reptile": Row(lambda: presets.reptile(plain(), **STEPS), exact=False),
    "anil": Row(lambda: presets.anil(plain(), **STEPS)),
    "boil": Row(lambda: presets.boil(plain(), **STEPS)),
    "meta_sgd": Row(lambda: presets.meta_sgd(plain(), **STEPS)),
    "maml_plus_plus": Row(
        lambda: presets.maml_plus_plus(plain(), **STEPS, second_order_from=0, multi_step_until=100)
    ),
    "cavia": Row(lambda: presets.cavia(contextual(), inner_lr=0.5, num_inner_steps=3)),
    "lora": Row(lambda: presets.maml(low_rank(), **STEPS, fast="lora")),
    "film": Row(lambda: presets.maml(filmed(), **STEPS, fast="film")),
    "imaml": Row(
        lambda: presets.imaml(
            plain(), inner_lr=0.05, num_inner_steps=3, proximal=2.0, num_cg_iterations=5
        ),
        exact=False,
    ),
    "melu": Row(lambda: presets.melu(plain(), **STEPS)),
    "fine_tuning": Row(
        lambda: presets.fine_tuning(plain(), inner_lr=0.3, num_inner_steps=5), exact=False
    ),
    "momentum": Row(with_rule(momentum)),
    "adam": Row(with_rule(adam)),
    "clipped": Row(with_rule(lambda lr: clipped(momentum(lr), max_norm=0.5))),
    "stopped_early": Row(with_rule(lambda lr: stopped_early(adam(lr), min_gradient_norm=0.3))),
    "ridge": Row(lambda: presets.ridge(plain()), descends=False, solved=True),
    "ridge_classes": Row(
        lambda: presets.ridge(classifier(), scale=5.0), descends=False, solved=True, classify=True
    ),
    "logistic": Row(
        lambda: presets.logistic(classifier()), descends=False, solved=True, classify=True
    ),
    "prototypes": Row(
        lambda: presets.prototypes(classifier()), descends=False, solved=True, classify=True
    ),
    "proto_maml": Row(
        lambda: presets.prototypes(classifier(), **STEPS),
        descends=False,
        solved=True,
        classify=True,
    ),
    "amortised_head": Row(
        lambda: presets.amortised_head(classifier(), hidden=5),
        descends=False,
        solved=True,
        classify=True,
    ),
    "neural_process": Row(
        lambda: presets.neural_process(filmed(), row_width=WIDTH + 1, hidden=5), descends=False
    ),
    "amortised_steps": Row(
        lambda: presets.neural_process(filmed(), row_width=WIDTH + 1, hidden=5, **STEPS),
        descends=False,
    ),
}

EVERY = pytest.mark.parametrize("name", TABLE)
DESCENDING = pytest.mark.parametrize("name", [n for n, r in TABLE.items() if r.descends])
EXACT = pytest.mark.parametrize("name", [n for n, r in TABLE.items() if r.exact])


def double(examples: Examples) -> Examples:
    return {n: t.double() if t.is_floating_point() else t for n, t in examples.items()}


def tasks(name: str) -> TaskBatch:
    """Three tasks in float64, with supports of 5, 2 and 0 rows."""
    drawn = TABLE[name].tribes.sample(3, torch.Generator().manual_seed(3))
    support, query = double(drawn.support), double(drawn.query)
    support["mask"] = torch.arange(5) < torch.tensor([5, 2, 0])[:, None]
    return TaskBatch(support, query)


def start_of(learner: GradientBased) -> Params:
    """Meta-parameters in float64, moved off any start that is special (zeros)."""
    generator = torch.Generator().manual_seed(4)
    params = {n: p.double() for n, p in learner.init(draw()).items()}
    return {
        n: p
        if n in learner.fixed
        else p + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for n, p in params.items()
    }


def task(examples: Examples, row: int) -> Examples:
    return {n: t[row : row + 1] for n, t in examples.items()}


def close(found: Params, expected: Params, *, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


@DESCENDING
def test_zero_steps_and_an_empty_support_are_the_start(name: str) -> None:
    learner = TABLE[name].make()
    params, support = start_of(learner), tasks(name).support
    still = replace(learner, num_inner_steps=0).adapt(params, support)
    moved = learner.adapt(params, support)
    for fast in learner.fast:
        assert torch.equal(still[fast][0], params[fast])
        assert torch.equal(moved[fast][2], params[fast])  # the third task has no rows
        assert not torch.equal(moved[fast][0], params[fast])


@EVERY
def test_adapting_leaves_the_meta_parameters_as_they_were(name: str) -> None:
    learner = TABLE[name].make()
    params, batch = start_of(learner), tasks(name)
    before = {n: p.clone() for n, p in params.items()}
    learner.adapt(params, batch.support)
    learner.meta_gradient(params, batch)
    close(params, before, rtol=0, atol=0)


@DESCENDING
def test_adapting_lowers_a_smooth_support_loss(name: str) -> None:
    learner = TABLE[name].make()
    params, support = start_of(learner), task(tasks(name).support, 0)
    rows = {n: t[0] for n, t in support.items()}
    state = {n: v[0] for n, v in learner.adapt(params, support).items()}
    own = {n: p for n, p in params.items() if not n.startswith("rule.")}
    after = learner.model.support_loss({**own, **state}, {}, rows)
    assert after < learner.model.support_loss(own, {}, rows)


def slope(function: Callable[[Params], Tensor], params: Params, direction: Params) -> float:
    """The derivative of `function` along `direction`, by central differences of fourth order.

    The error is O(step^4) + O(rounding / step): about 1e-11 at this step.
    """
    step = 1e-4

    def at(distance: float) -> float:
        return float(function({n: p + distance * direction[n] for n, p in params.items()}))

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8.0 * near - far) / (12.0 * step)


def some_direction(params: Params, fixed: frozenset[str] = frozenset()) -> Params:
    generator = torch.Generator().manual_seed(5)
    drawn = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in params.items()}
    return {n: d * 0.0 if n in fixed else d for n, d in drawn.items()}


def along(gradients: Params, direction: Params) -> float:
    return sum(float((g * direction[n]).sum()) for n, g in gradients.items())


@EXACT
def test_the_meta_gradient_is_that_of_finite_differences(name: str) -> None:
    learner = TABLE[name].make()
    params, batch = start_of(learner), tasks(name)
    # at this outer step of MAML++, the loss after every inner step counts
    outer_step = 30 if name == "maml_plus_plus" else None
    found = learner.meta_gradient(params, batch, outer_step=outer_step).gradients
    direction = some_direction(params, learner.fixed)
    numeric = slope(
        lambda p: learner.query_losses(p, batch, outer_step=outer_step).sum(), params, direction
    )
    assert along(found, direction) == pytest.approx(numeric, rel=1e-7)


@EVERY
def test_every_meta_parameter_gets_a_gradient_and_a_fixed_one_none(name: str) -> None:
    learner = TABLE[name].make()
    found = learner.meta_gradient(start_of(learner), tasks(name)).gradients
    silent = {n for n, g in found.items() if not bool(g.abs().sum() > 0)}
    from_support = learner.model.head if TABLE[name].solved else frozenset()
    assert silent == learner.fixed | from_support
    assert all(bool(torch.isfinite(g).all()) for g in found.values())


@EVERY
def test_a_batch_gives_each_task_what_it_gets_alone(name: str) -> None:
    learner = TABLE[name].make()
    params, batch = start_of(learner), tasks(name)
    together = learner.adapt(params, batch.support)
    per_task = learner.meta_gradient(params, batch, per_task=True)
    whole = learner.meta_gradient(params, batch)
    for row in range(3):
        alone = learner.adapt(params, task(batch.support, row))
        close({n: v[row : row + 1] for n, v in together.items()}, alone)
        single = TaskBatch(task(batch.support, row), task(batch.query, row))
        found = learner.meta_gradient(params, single)
        close({n: g[row] for n, g in per_task.gradients.items()}, found.gradients)
        torch.testing.assert_close(per_task.loss_sum[row], found.loss_sum)
    close({n: g.sum(0) for n, g in per_task.gradients.items()}, whole.gradients)


@EVERY
def test_bound_to_its_meta_parameters_it_gives_the_same_numbers(name: str) -> None:
    learner = TABLE[name].make()
    params, support = start_of(learner), tasks(name).support
    bound = bind(learner, params)
    for num_users in (1, 2, 5, 17):  # of records: exactly, filled up, and more than the largest
        rows = torch.arange(num_users) % len(next(iter(support.values())))
        examples = {field: value[rows] for field, value in support.items()}
        close(bound.adapt(examples), learner.adapt(params, examples))


@EVERY
def test_padding_and_the_order_of_rows_and_tasks_do_not_matter(name: str) -> None:
    learner = TABLE[name].make()
    params, batch = start_of(learner), tasks(name)

    def padded(examples: Examples, junk: float) -> Examples:
        def pad(tensor: Tensor) -> Tensor:
            shape = (tensor.shape[0], 2, *tensor.shape[2:])
            # an index may be any that exists; a row that the mask leaves out does not count
            fill = junk if tensor.is_floating_point() else tensor.dtype == torch.long
            return torch.cat([tensor, torch.full(shape, fill, dtype=tensor.dtype)], 1)

        return {n: pad(t) for n, t in examples.items()}

    expected = learner.meta_gradient(params, batch)
    wider = TaskBatch(padded(batch.support, 7.0), padded(batch.query, -7.0))
    found = learner.meta_gradient(params, wider)
    close(found.gradients, expected.gradients, rtol=1e-8, atol=1e-10)
    rows, order = torch.tensor([4, 2, 0, 1, 3]), torch.tensor([2, 0, 1])
    shuffled = TaskBatch(
        {n: t[:, rows][order] for n, t in batch.support.items()},
        {n: t[order] for n, t in batch.query.items()},
    )
    found = learner.meta_gradient(params, shuffled)
    close(found.gradients, expected.gradients, rtol=1e-8, atol=1e-10)


@EVERY
def test_parameters_and_state_survive_save_and_load(name: str, tmp_path: Path) -> None:
    learner = TABLE[name].make()
    params, batch = learner.init(draw()), TABLE[name].tribes.sample(3, draw())
    state = learner.adapt(params, batch.support)
    save_file({n: p.contiguous() for n, p in params.items()}, tmp_path / "params.safetensors")
    save_file({n: p.contiguous() for n, p in state.items()}, tmp_path / "state.safetensors")
    again, loaded = TABLE[name].make(), load_file(tmp_path / "params.safetensors")
    close(again.adapt(loaded, batch.support), state, rtol=0, atol=0)
    scores = learner.score(params, state, batch.query["x"])
    restored = again.score(loaded, load_file(tmp_path / "state.safetensors"), batch.query["x"])
    assert torch.equal(scores, restored)


@EVERY
def test_the_same_seed_gives_the_same_run(name: str) -> None:
    learner = TABLE[name].make()
    runs = [
        meta_train(learner, batches(TABLE[name].tribes, tasks_per_batch=4, seed=5), num_steps=2)
        for _ in range(2)
    ]
    close(runs[0], runs[1], rtol=0, atol=0)


def error(learner: GradientBased, params: Params, batch: TaskBatch) -> Tensor:
    """Each task's squared error, or share of wrong classes, after adapting, `[T]`."""
    predictions = learner.score(params, learner.adapt(params, batch.support), batch.query["x"])
    targets = batch.query["y"]
    if targets.dtype == torch.long:
        return (predictions.argmax(-1) != targets).float().mean(1)
    return (predictions - targets).square().mean((1, 2))


def trained(name: str, world: TaskSource) -> tuple[GradientBased, Params]:
    learner = TABLE[name].make()
    source = batches(world, tasks_per_batch=16, seed=6)
    return learner, meta_train(learner, source, num_steps=60, outer_lr=0.05)


@EVERY
def test_it_learns_two_tribes(name: str) -> None:
    """Nothing beats chance before adapting; five rows take a good part of the error away."""
    world = TABLE[name].tribes
    chance = 0.5 if world.classify else 1.0
    learner, params = trained(name, world)
    batch = world.sample(200, torch.Generator().manual_seed(7))
    adapted = error(learner, params, batch)
    untold = {**batch.support, "mask": torch.zeros_like(batch.support["mask"])}
    unadapted = error(learner, params, replace(batch, support=untold))
    assert float(adapted.mean()) < 0.75 * chance
    assert float(unadapted.mean()) > 0.9 * chance


@EVERY
def test_it_gains_nothing_where_there_is_nothing_to_learn(name: str) -> None:
    """Labels are independent of everything: an error below chance would be a leak."""
    world = TABLE[name].null
    learner, params = trained(name, world)
    found = error(learner, params, world.sample(400, torch.Generator().manual_seed(8)))
    chance = 0.5 if world.classify else 1.0
    assert float(found.mean()) > chance - 3.0 * float(found.std()) / len(found) ** 0.5


def test_implicit_is_the_derivative_of_a_converged_inner_loop() -> None:
    learner = presets.imaml(
        plain(), inner_lr=0.1, num_inner_steps=100, proximal=4.0, num_cg_iterations=40
    )
    params, batch = start_of(learner), tasks("imaml")
    found = learner.meta_gradient(params, batch).gradients
    direction = some_direction(params)
    numeric = slope(lambda p: learner.query_losses(p, batch).sum(), params, direction)
    assert along(found, direction) == pytest.approx(numeric, rel=1e-7)
