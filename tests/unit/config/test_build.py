"""Names of algorithms in settings become the learners that they name, with every setting used."""

from typing import get_args

import pytest
import torch
from torch import nn

from raymeta.adapters.context import with_context
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.config import build
from raymeta.config.algorithms import AlgorithmConfig
from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel

KINDS = get_args(get_args(AlgorithmConfig)[0])


def learner(**algorithm: object) -> GradientBased:
    """The learner of these settings, on a model that has a head, a body and a context."""
    experiment = ExperimentConfig.parse({"name": "a", "algorithm": algorithm}, source="test")
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    extended = with_context(net, ["0"], size=2, generator=torch.Generator())
    return build._algorithm(experiment.algorithm, ModuleModel(extended, squared_error))


def test_every_algorithm_of_the_settings_is_built_and_none_is_left_out() -> None:
    names = {kind.model_fields["name"].default for kind in KINDS}
    assert names == set(build.ALGORITHMS)
    for name in names - {"ridge"}:  # which takes no steps and needs a linear head
        made = learner(name=name, num_inner_steps=2)
        assert made.num_inner_steps == 2
        assert made.fast <= made.model.adaptable


def test_the_settings_of_the_rule_reach_it() -> None:
    gradients = {"w": torch.tensor([30.0, 40.0])}
    fast = {"w": torch.zeros(2)}

    def step(**algorithm: object) -> torch.Tensor:
        rule = learner(inner_lr=1.0, **algorithm).rule
        moved, _ = rule.update(rule.init(fast), rule.memory(fast), fast, gradients, 0)
        return moved["w"]

    assert step(name="maml").tolist() == [-30.0, -40.0]
    clipped = step(name="maml", max_inner_gradient_norm=5.0)
    assert clipped.tolist() == pytest.approx([-3.0, -4.0])
    assert step(name="maml", min_inner_gradient_norm=51.0).tolist() == [0.0, 0.0]
    adam = step(name="maml", inner_optimizer="adam")
    assert adam.tolist() == pytest.approx([-1.0, -1.0], rel=1e-4)
    assert step(name="meta_sgd").tolist() == [-30.0, -40.0]


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"name": "anil", "proximal": 1.0}, "proximal"),
        ({"name": "meta_sgd", "inner_optimizer": "adam"}, "inner_optimizer"),
        ({"name": "maml", "fast": "lora"}, "'lora' matches none"),
    ],
)
def test_a_setting_that_an_algorithm_does_not_have_is_refused(
    algorithm: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(**algorithm)
