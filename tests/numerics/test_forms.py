"""Every execution form gives the numbers of the definition, in float64 to rounding."""

import logging

import pytest
import torch
from torch import Tensor, nn

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.traced import Traced
from raymeta.errors import AdaptationError
from raymeta.inner import forms
from raymeta.inner.gradient import FirstOrder, Implicit, Interpolated, Unrolled
from raymeta.inner.losses import squared_error
from raymeta.inner.rules import learned_rates_per_layer_and_step, momentum, sgd
from raymeta.models.module import ModuleModel
from raymeta.types import Params, TaskBatch

TASKS, ROWS, WIDTH, TABLE = 5, 3, 9, 40


class Shop(nn.Module):
    """Two look-ups of one table, a slow layer, and dense layers after them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(TABLE, 4)
        self.slow = nn.Linear(8, WIDTH)
        self.hidden = nn.Linear(WIDTH, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        features = torch.tanh(self.slow(self.table(x).flatten(-2)))
        return torch.tanh(self.hidden(features))


class Transposed(nn.Module):
    """x W, with W stored as [inputs, outputs] and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


FAST = {
    "the head": {"head.weight", "head.bias"},
    "dense layers": {"hidden.weight", "hidden.bias", "head.weight", "head.bias"},
    "the table": {"table.weight"},
    "everything": {"table.weight", "slow.weight", "slow.bias", "hidden.weight", "head.weight"},
    "a bias": {"hidden.bias"},
}
RULES = {
    "one rate": sgd(0.3),
    "a rate a layer and step": learned_rates_per_layer_and_step(0.3, num_steps=3),
}
MODES = {
    "unrolled": Unrolled(),
    "first order": FirstOrder(),
    "multi-step loss": Unrolled(multi_step_until=10, second_order_from=2),
}


def batch(num_rows: int = ROWS) -> TaskBatch:
    generator = torch.Generator().manual_seed(3)

    def rows() -> Params:
        mask = torch.rand(TASKS, num_rows, generator=generator) < 0.8
        return {
            # few rows of the table, so that a user meets some of them twice
            "x": torch.randint(0, 6, (TASKS, num_rows, 2), generator=generator),
            "y": torch.randn(TASKS, num_rows, 1, generator=generator, dtype=torch.float64),
            "mask": mask,
        }

    return TaskBatch(rows(), rows())


def learner(
    fast, *, rule=RULES["one rate"], mode=MODES["unrolled"], module=Shop, num_steps: int = 3
) -> GradientBased:
    torch.manual_seed(4)
    model = ModuleModel(module().double(), squared_error)
    return GradientBased(model, rule, frozenset(fast), mode, num_steps)


def start_of(algorithm: GradientBased) -> Params:
    generator = torch.Generator().manual_seed(5)
    params = algorithm.init(generator)
    return {n: p + 0.2 * torch.randn(p.shape, generator=generator).to(p) for n, p in params.items()}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Chooses between the form and the definition, for a learner made after it."""
    return lambda form: monkeypatch.setattr(forms, "MIN_TASK_STEPS", 1 if form else 10**9)


def close(found: Params, expected: Params) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("rule", "mode"),
    [
        ("one rate", "unrolled"),
        ("one rate", "first order"),
        ("a rate a layer and step", "multi-step loss"),
    ],
)
@pytest.mark.parametrize("fast", FAST)
def test_the_gram_form_is_the_definition(use, fast: str, rule: str, mode: str) -> None:
    found = []
    for form in (True, False):
        use(form)
        algorithm = learner(FAST[fast], rule=RULES[rule], mode=MODES[mode])
        params = start_of(algorithm)
        gradient = algorithm.meta_gradient(params, batch(), outer_step=3)
        state = algorithm.adapt(params, batch().support)
        assert len([f for f in algorithm._forms.values() if f is not None]) == (2 if form else 0)
        by_task = algorithm.meta_gradient(params, batch(), outer_step=3, per_task=True).gradients
        found.append((gradient.gradients, {"loss": gradient.loss_sum}, state, by_task))
    for by_form, defined in zip(*found, strict=True):
        close(by_form, defined)


def test_a_weight_stored_as_inputs_by_outputs_is_kept_as_deltas_too(use) -> None:
    found = []
    generator = torch.Generator().manual_seed(6)
    rows = batch()
    for part in (rows.support, rows.query):
        part["x"] = torch.randn(TASKS, ROWS, WIDTH, generator=generator, dtype=torch.float64)
    for form in (True, False):
        use(form)
        algorithm = learner({"0.weight"}, module=lambda: nn.Sequential(Transposed()))
        params = start_of(algorithm)
        state = algorithm.adapt(params, rows.support)
        found.append({**algorithm.meta_gradient(params, rows).gradients, **state})
        if form:
            assert all("0.weight" in f.support.layers for f in algorithm._forms.values())
    close(*found)


def test_layers_are_kept_as_deltas_where_those_are_fewer_numbers(use) -> None:
    use(True)
    for num_rows, expected in ((ROWS, {"hidden.weight"}), (WIDTH, set())):
        algorithm = learner(FAST["dense layers"])
        algorithm.adapt(start_of(algorithm), batch(num_rows).support)
        (form,) = algorithm._forms.values()
        assert set(form.support.layers) == expected


@pytest.mark.parametrize(
    ("rule", "mode"), [(momentum(0.1), Unrolled()), (sgd(0.1), Implicit(proximal=1.0))]
)
def test_a_rule_without_a_rate_or_a_mode_in_weight_space_runs_as_defined(use, rule, mode) -> None:
    use(True)
    algorithm = learner(FAST["the head"], rule=rule, mode=mode)
    algorithm.meta_gradient(start_of(algorithm), batch())
    assert not algorithm._forms


class _StraightThrough(torch.autograd.Function):
    """Rounds; its derivative is declared to be 1."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return slope

    @staticmethod
    def vmap(info, in_dims, x: Tensor) -> tuple[Tensor, int]:
        return _StraightThrough.apply(x), in_dims[0]


class Rounded(Shop):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(_StraightThrough.apply(10 * self.features(x)))


def test_a_derivative_that_the_operations_do_not_have_is_noticed(use, caplog) -> None:
    """A straight-through estimator: a trace of its forward pass has derivative zero."""
    found = []
    for form in (True, False):
        use(form)
        algorithm = learner(FAST["dense layers"], module=Rounded)
        with caplog.at_level(logging.WARNING, logger="raymeta.inner.forms"):
            found.append(algorithm.meta_gradient(start_of(algorithm), batch()).gradients)
    assert "differs from the definition" in caplog.text
    close(*found)


class Sampled(Shop):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x) + 0.0 * torch.rand(()).to(torch.float64))


def test_a_loss_that_draws_numbers_is_not_cut(use) -> None:
    use(True)
    algorithm = learner(FAST["dense layers"], module=Sampled)
    rows = {name: value[:1] for name, value in batch().support.items()}
    algorithm.adapt(start_of(algorithm), rows)
    assert list(algorithm._forms.values()) == [None]


@pytest.mark.parametrize("mode", [Unrolled(), Interpolated()])
def test_a_record_gives_the_learners_numbers_on_other_inputs(mode) -> None:
    algorithm = learner(FAST["the head"], mode=mode, num_steps=1)
    traced = Traced(algorithm)
    params = start_of(algorithm)
    moved = {name: value + 0.1 for name, value in params.items()}
    for at in (params, moved):
        for per_task in (False, True):
            expected = algorithm.meta_gradient(at, batch(), per_task=per_task)
            found = traced.meta_gradient(at, batch(), per_task=per_task)
            close(found.gradients, expected.gradients)
            torch.testing.assert_close(found.loss_sum, expected.loss_sum)
        close(traced.adapt(at, batch().support), algorithm.adapt(at, batch().support))
    assert len(traced._records) == 3


def test_a_record_leaves_out_what_changes_nothing() -> None:
    class Roundabout(Shop):
        def features(self, x: Tensor) -> Tensor:
            features = super().features(x)
            there = features.t().t().reshape(-1, 3, 2).reshape(-1, 2, 3)
            return there.reshape(-1, 6).expand(len(features), 6)

    one = {name: value[:1] for name, value in batch().support.items()}
    lengths = []
    for module in (Shop, Roundabout):
        algorithm = learner(FAST["everything"], module=module)
        traced, params = Traced(algorithm), start_of(algorithm)
        close(traced.adapt(params, one), algorithm.adapt(params, one))
        (record,) = traced._records.values()
        lengths.append(len(record.run.__self__.graph.nodes))
    assert lengths[0] == lengths[1]


def test_a_learner_that_anneals_is_recorded_when_that_is_over() -> None:
    algorithm = learner(FAST["the head"], mode=Unrolled(multi_step_until=3), num_steps=1)
    traced, params = Traced(algorithm), start_of(algorithm)
    for outer_step in (0, 2, 3, None):
        expected = algorithm.meta_gradient(params, batch(), outer_step=outer_step).gradients
        found = traced.meta_gradient(params, batch(), outer_step=outer_step).gradients
        close(found, expected)
        assert len(traced._records) == (0 if outer_step in (0, 2) else 1)


def test_a_record_of_chance_is_refused() -> None:
    class Noisy(Shop):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x) + torch.rand(()).to(torch.float64))

    algorithm = learner(FAST["the head"], module=Noisy, num_steps=1)
    one = {name: value[:1] for name, value in batch().support.items()}
    with pytest.raises(AdaptationError, match="gives other numbers"):
        Traced(algorithm).adapt(start_of(algorithm), one)
