"""Meta-gradients and adapting, in float64, against finite differences, hand derivations, a loop."""

import numpy as np
import pytest
import torch

from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.data.events import History, SupportView, pad_items, support_from_events
from raymeta.models.cooccurrence import Cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.train.outer import mean_over_tasks
from raymeta.types import Examples, MetaGradient, Params, TaskBatch

EXACT = [
    presets.maml,
    presets.anil,
    presets.meta_sgd,
    presets.maml_plus_plus,
    presets.cavia,
]
PRESETS = [*EXACT, presets.fomaml, presets.reptile, presets.imaml, presets.fine_tuning]
NUM_ITEMS, DIM = 7, 3


def model() -> Factorization:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(NUM_ITEMS, DIM, generator=generator, dtype=torch.float64)
    prior = torch.randn(NUM_ITEMS, generator=generator, dtype=torch.float64).log_softmax(0)
    spectrum = torch.tensor([5.0, 3.0, 2.0], dtype=torch.float64)
    start = Cooccurrence(vectors, spectrum, prior, *torch.tensor([3.0, 2.0], dtype=torch.float64))
    return Factorization(start, regularisation=1.0)


def learner(preset) -> GradientBased:
    return preset(model(), inner_lr=0.3, num_inner_steps=2)


def params_of(algorithm: GradientBased) -> Params:
    generator = torch.Generator().manual_seed(2)
    start = algorithm.init(generator)
    return {n: p + 0.1 * torch.randn(p.shape, generator=generator).to(p) for n, p in start.items()}


def history(items: list[int]) -> History:
    n = len(items)
    days = np.arange(n, dtype=np.int64) * 86_400_000
    zeros = np.zeros(n, np.int64)
    return History(np.array(items, np.int64), zeros, days, np.ones(n, np.float32), zeros)


def support(users: list[list[int]]) -> Examples:
    rows = support_from_events([history(u) for u in users], SupportView(20, (0,)))
    return {n: t.double() if t.is_floating_point() else t for n, t in rows.items()}


def batch(users: list[list[int]], queries: list[list[int]]) -> TaskBatch:
    return TaskBatch(support(users), pad_items([np.array(q, np.int64) for q in queries]))


USERS, QUERIES = [[0, 1, 1], [2], []], [[3, 4], [5], [6, 1]]


@pytest.mark.parametrize("preset", EXACT)
def test_the_meta_gradient_is_that_of_finite_differences(preset) -> None:
    algorithm = learner(preset)
    params, tasks = params_of(algorithm), batch(USERS, QUERIES)
    found = algorithm.meta_gradient(params, tasks).gradients
    step = 1e-6  # the error of a central difference is O(step^2) + O(rounding / step)
    for name in params.keys() - algorithm.fixed:
        for index in np.ndindex(*params[name].shape):
            losses = []
            for sign in (1, -1):
                moved = {n: p.clone() for n, p in params.items()}
                moved[name][index] += sign * step
                losses.append(float(algorithm.query_losses(moved, tasks).sum()))
            numeric = (losses[0] - losses[1]) / (2 * step)
            assert float(found[name][index]) == pytest.approx(numeric, rel=1e-5, abs=1e-7), name


def test_first_order_is_the_hand_derivation() -> None:
    """FOMAML in the context: d query loss / d context at the adapted context, and nothing else."""
    algorithm = learner(presets.fomaml)
    params, tasks = params_of(algorithm), batch([[0, 1]], [[3]])
    state = algorithm.adapt(params, tasks.support)
    leaves = {n: v[0].clone().requires_grad_() for n, v in state.items()}
    one = [{n: t[0] for n, t in part.items()} for part in (tasks.support, tasks.query)]
    shared = algorithm.model.shared(params)
    loss = algorithm.model.query_loss({**params, **leaves}, shared, *one)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    found = algorithm.meta_gradient(params, tasks).gradients
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(
        found["context"], learner(presets.maml).meta_gradient(params, tasks).gradients["context"]
    )


def test_one_step_from_zero_is_the_closed_form() -> None:
    """context = lr * sum_j v_j, v = F^(1/2) W."""
    algorithm = presets.anil(model(), inner_lr=0.3, num_inner_steps=1)
    params = algorithm.init(torch.Generator())
    tables = algorithm.tables()
    kept = tables["spectrum"] / (tables["spectrum"] + 1.0)
    filtered = (kept / (kept.sum() / tables["log_num_items"].exp())).sqrt()
    expected = 0.3 * (tables["item_vectors"] * filtered)[[0, 2]].sum(0)
    state = algorithm.adapt(params, support([[0, 2]]))
    torch.testing.assert_close(state["context"][0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_gives_each_user_what_it_gets_alone(preset) -> None:
    algorithm = learner(preset)
    params = params_of(algorithm)
    together = algorithm.adapt(params, support(USERS))
    for row, user in enumerate(USERS):
        alone = algorithm.adapt(params, support([user]))
        for name, value in alone.items():
            torch.testing.assert_close(together[name][row], value[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_adapting_lowers_the_support_loss_and_zero_events_or_steps_leave_the_start(preset) -> None:
    algorithm = preset(model(), inner_lr=0.05, num_inner_steps=2)
    params = algorithm.init(torch.Generator())
    before = {n: p.clone() for n, p in params.items()}
    rows = support([[0, 1, 2]])
    one = {n: t[0] for n, t in rows.items()}
    shared = algorithm.model.shared(params)
    state = {n: v[0] for n, v in algorithm.adapt(params, rows).items()}
    start = algorithm.model.support_loss(params, shared, one)
    assert algorithm.model.support_loss({**params, **state}, shared, one) < start
    untouched = [
        algorithm.adapt(params, support([[]])),
        preset(model(), inner_lr=0.05, num_inner_steps=0).adapt(params, rows),
    ]
    for result in untouched:
        for name, value in result.items():
            assert torch.equal(value[0], params[name])
    assert all(torch.equal(params[n], p) for n, p in before.items())


@pytest.mark.parametrize("preset", PRESETS)
def test_per_task_gradients_sum_to_the_meta_gradient(preset) -> None:
    algorithm = learner(preset)
    params, tasks = params_of(algorithm), batch(USERS, QUERIES)
    summed = algorithm.meta_gradient(params, tasks).gradients
    rows = algorithm.meta_gradient(params, tasks, per_task=True).gradients
    for name, value in summed.items():
        torch.testing.assert_close(rows[name].sum(0), value, rtol=1e-10, atol=1e-12)


def test_two_workers_give_the_mean_that_one_with_both_shards_gives() -> None:
    """Shards of unequal size: the mean is over tasks, not over workers."""
    algorithm = learner(presets.maml)
    params = params_of(algorithm)

    def local(rows: slice) -> MetaGradient:
        return algorithm.meta_gradient(params, batch(USERS[rows], QUERIES[rows]))

    buffers: list[torch.Tensor] = []
    for part in (local(slice(0, 2)), local(slice(2, 3))):
        mean_over_tasks(part, lambda flat: buffers.append(flat.clone()))
    total = buffers[0] + buffers[1]
    found, found_loss = mean_over_tasks(local(slice(0, 2)), lambda flat: flat.copy_(total))
    expected, loss = mean_over_tasks(local(slice(0, 3)), lambda flat: None)
    assert found_loss == pytest.approx(loss, rel=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)
