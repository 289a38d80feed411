"""Any module as a model: its stages, its head, its adapters, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from raymeta.adapters.context import with_context
from raymeta.adapters.film import with_film
from raymeta.adapters.lora import with_lora
from raymeta.adapters.select import select, state_bytes
from raymeta.algorithms import presets
from raymeta.data.worlds.known import TwoTribes
from raymeta.errors import ConfigError
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel
from raymeta.types import TaskBatch


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


class Residual(nn.Module):
    """Not an `nn.Sequential`; its last layer's output is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.body(x).tanh())


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tasks() -> TaskBatch:
    return TwoTribes().sample(3, draw())


@pytest.mark.parametrize("module", [net(), Residual(), nn.Linear(4, 1)])
@pytest.mark.parametrize("fast", ["all", "head", ["*bias"]])
def test_what_runs_before_the_loop_changes_no_result(module: nn.Module, fast: str) -> None:
    model = ModuleModel(module, squared_error)
    params, batch = model.init(draw()), tasks()
    prepared = model.with_activations(params, batch.support, select(model, fast))
    has_body = not isinstance(module, nn.Linear)
    assert (len(prepared) > len(batch.support)) == (fast == "head" and has_body)
    for row in range(3):
        expected = model.support_loss(params, {}, {n: t[row] for n, t in batch.support.items()})
        found = model.support_loss(params, {}, {n: t[row] for n, t in prepared.items()})
        torch.testing.assert_close(found, expected)


def test_a_frozen_body_runs_once_for_a_batch_whatever_the_steps() -> None:
    class Counted(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return super().forward(x)

    model = ModuleModel(nn.Sequential(Counted(4, 6), nn.Tanh(), nn.Linear(6, 1)), squared_error)
    learner = presets.anil(model, inner_lr=0.1, num_inner_steps=7)
    params = learner.init(draw())
    learner.meta_gradient(params, tasks())
    assert Counted.calls == 2  # support, query


def test_the_head_is_the_last_layer_and_a_wrong_one_is_refused() -> None:
    assert ModuleModel(net(), squared_error).head == {"4.weight", "4.bias"}
    assert ModuleModel(Residual(), squared_error).head == {"out.weight", "out.bias"}
    assert ModuleModel(nn.Linear(4, 1), squared_error).head == {"weight", "bias"}

    class Squashed(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sigmoid()

    model = ModuleModel(Squashed(), squared_error)
    learner = presets.anil(model, inner_lr=0.1, num_inner_steps=1)
    with pytest.raises(ConfigError, match="not that of 'out' alone"):
        learner.meta_gradient(learner.init(draw()), tasks())


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.Dropout(0.5)])
def test_what_makes_rows_depend_on_each_other_or_on_chance_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match="training mode"):
        ModuleModel(nn.Sequential(layer, nn.Linear(4, 1)), squared_error)
    frozen = nn.Sequential(layer, nn.Linear(4, 1)).eval()
    assert ModuleModel(frozen, squared_error).head == {"1.weight", "1.bias"}


def test_adapters_start_as_the_module_was_and_leave_it_alone() -> None:
    module, x = net(), torch.randn(7, 4, generator=draw())
    expected = module(x)
    changed = {
        "lora": with_lora(module, ["0", "2"], rank=2, generator=draw()),
        "film": with_film(module, ["2"]),
        "context": with_context(module, ["0"], size=3, generator=draw()),
    }
    for fast, adapted in changed.items():
        torch.testing.assert_close(adapted(x), expected)
        assert select(ModuleModel(adapted, squared_error), fast)
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in net().named_parameters()]


def test_a_users_state_is_as_small_as_its_fast_set() -> None:
    module = with_lora(net(), ["0"], rank=2, generator=draw())
    model = ModuleModel(module, squared_error)
    fast = select(model, "lora")
    params = model.init(draw())
    assert fast == {"0.lora_a", "0.lora_b"}
    assert state_bytes(params, fast) == 4 * 2 * (4 + 6)


def test_a_low_rank_change_is_the_product_of_its_factors() -> None:
    layer = nn.Linear(4, 6)
    changed = with_lora(nn.Sequential(layer), ["0"], rank=2, alpha=6.0, generator=draw())[0]
    nn.init.normal_(changed.lora_b, generator=draw())
    x = torch.randn(3, 4, generator=draw())
    whole = layer.weight + 3.0 * (changed.lora_a @ changed.lora_b).T
    torch.testing.assert_close(changed(x), x @ whole.T + layer.bias)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: select(ModuleModel(net(), squared_error), "lora"), "'lora' matches none"),
        (lambda: select(ModuleModel(net(), squared_error), ["9.*"]), "matches none"),
        (lambda: with_lora(net(), ["1"], rank=2, generator=draw()), "'1' matches no Linear"),
        (lambda: ModuleModel(net(), squared_error, adaptable=["x"]), "matches none"),
        (lambda: ModuleModel(nn.Tanh(), squared_error), "Tanh has no parameters"),
        (
            lambda: presets.ridge(ModuleModel(nn.Sequential(nn.LayerNorm(4)), squared_error)),
            "'0' is a LayerNorm",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_several_losses_are_weighed_in_the_inner_loop_by_what_is_learned() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.price, self.rating = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.body(x).tanh()
            return {"price": self.price(hidden), "rating": self.rating(hidden)}

    losses = {"price": squared_error, "rating": squared_error}
    model = ModuleModel(TwoHeads(), losses)
    learner = presets.maml(model, inner_lr=0.1, num_inner_steps=2)
    drawn = tasks()
    several = [
        {
            **{n: t for n, t in part.items() if n != "y"},
            "y.price": part["y"],
            "y.rating": -part["y"],
        }
        for part in (drawn.support, drawn.query)
    ]
    params = learner.init(draw())
    found = learner.meta_gradient(params, TaskBatch(*several)).gradients
    assert float(found["log_variance.price"].abs()) > 0
    assert "log_variance.price" not in learner.fast
