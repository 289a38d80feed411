"""Sinusoid regression, a row an algorithm: MSE over 600 new tasks with a 95% interval.

    python tests/benchmarks/sinusoids.py --algorithm maml
    python tests/benchmarks/sinusoids.py --algorithm meta_sgd --family meta_sgd

The net is 1-40-40-1 with ReLU, 25 tasks an outer step, Adam from 1e-3 down a cosine; a row is
trained at one support size (`--shots`: by default the family's own, 10 or 5) and judged at 5, 10
and 20 on 100 points a task. Beside it: the published value where there is one, the start before
adapting, and ridge regression on the sine features of the family. Training runs from a record of
the learner's operations.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from raymeta.adapters.context import with_context
from raymeta.adapters.film import with_film
from raymeta.adapters.select import state_bytes
from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.outer import meta_train
from raymeta.algorithms.traced import Traced
from raymeta.data.worlds.base import batches
from raymeta.data.worlds.sinusoids import Sinusoids
from raymeta.inner.closed_form import ridge
from raymeta.inner.losses import squared_error
from raymeta.inner.rules import clipped
from raymeta.inner.schedules import cosine
from raymeta.models.module import ModuleModel
from raymeta.seeding import torch_generator
from raymeta.types import Examples, Params

TEST_TASKS, TEST_POINTS = 600, 100
FAMILIES = {
    "maml": Sinusoids(support_size=10, query_size=10),
    "meta_sgd": Sinusoids(support_size=5, query_size=5, min_frequency=0.8, max_frequency=1.2),
}
# MAML: read off figure 3 of Finn et al. 2017. Meta-SGD family: table 1 of Li et al. 2017.
PUBLISHED = {
    ("maml", "maml"): {5: "about .7", 10: "about .4", 20: "about .2"},
    ("maml", "meta_sgd"): {5: "1.13 +- .18", 10: ".85 +- .14", 20: ".71 +- .12"},
    ("meta_sgd", "meta_sgd"): {5: ".90 +- .16", 10: ".63 +- .12", 20: ".50 +- .10"},
}


@dataclass(frozen=True)
class Row:
    """How one algorithm is trained: the learner, the outer steps, whether a task is divided."""

    make: Callable[[nn.Module, torch.Generator], GradientBased]
    num_steps: int = 70_000
    divided: bool = True


def _model(net: nn.Module) -> ModuleModel:
    return ModuleModel(net, squared_error)


def _cavia(net: nn.Module, generator: torch.Generator) -> GradientBased:
    extended = with_context(net, ["0"], size=5, generator=generator)
    return presets.cavia(_model(extended), inner_lr=1.0, num_inner_steps=1)


def _imaml(net: nn.Module, _generator: torch.Generator) -> GradientBased:
    # The loss of a net is not convex and the implicit gradient does not see an inner loop diverge:
    # at twice the rate, or with less damping, training stalls. So much damping is near first
    # order.
    learner = presets.imaml(
        _model(net),
        inner_lr=0.005,
        num_inner_steps=20,
        proximal=1.0,
        num_cg_iterations=3,
        damping=10.0,
    )
    return replace(learner, rule=clipped(learner.rule, max_norm=5.0))


def _neural_process(net: nn.Module, _generator: torch.Generator) -> GradientBased:
    return presets.neural_process(_model(with_film(net, ["0", "2"])), row_width=2)


ROWS = {
    "maml": Row(lambda net, _: presets.maml(_model(net), inner_lr=0.01, num_inner_steps=1)),
    "fomaml": Row(lambda net, _: presets.fomaml(_model(net), inner_lr=0.01, num_inner_steps=1)),
    # Reptile looks at the support only: it gets the rows that others have in both parts
    # at twice the rate it learns more, and diverges on some tasks of 5 points
    "reptile": Row(
        lambda net, _: presets.reptile(_model(net), inner_lr=0.01, num_inner_steps=10),
        num_steps=6_000,
        divided=False,
    ),
    "meta_sgd": Row(lambda net, _: presets.meta_sgd(_model(net), inner_lr=0.01, num_inner_steps=1)),
    "anil": Row(lambda net, _: presets.anil(_model(net), inner_lr=0.1, num_inner_steps=5)),
    "maml_plus_plus": Row(
        lambda net, _: presets.maml_plus_plus(
            _model(net),
            inner_lr=0.01,
            num_inner_steps=5,
            second_order_from=500,
            multi_step_until=3_000,
        ),
        num_steps=40_000,
    ),
    "cavia": Row(_cavia),
    "imaml": Row(_imaml, num_steps=10_000),
    "ridge": Row(lambda net, _: presets.ridge(_model(net))),
    "neural_process": Row(_neural_process),
    "fine_tuning": Row(
        lambda net, _: presets.fine_tuning(_model(net), inner_lr=0.01, num_inner_steps=10),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=sorted(ROWS), required=True)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="maml")
    parser.add_argument("--shots", type=int, help="points in training; the family's if not given")
    parser.add_argument("--steps", type=int, help="outer steps; the row's own if not given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row, family = ROWS[arguments.algorithm], FAMILIES[arguments.family]
    shots = arguments.shots or family.support_size
    support_size = shots if row.divided else 2 * shots
    source = replace(family, support_size=support_size, query_size=shots)
    torch.manual_seed(arguments.seed)
    net = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    learner = row.make(net, torch_generator(arguments.seed, "adapters"))
    num_steps = arguments.steps or row.num_steps
    started_s = time.monotonic()
    params = meta_train(
        Traced(learner),
        batches(source, tasks_per_batch=25, seed=arguments.seed),
        num_steps=num_steps,
        schedule=cosine(num_steps, final=0.02),
        seed=arguments.seed,
    )
    result = {
        "algorithm": arguments.algorithm,
        "family": arguments.family,
        "shots": shots,
        "steps": num_steps,
        "train_s": round(time.monotonic() - started_s),
        "state_bytes": state_bytes(params, learner.fast),
    }
    for size in (5, 10, 20):
        published = PUBLISHED.get((arguments.algorithm, arguments.family), {}).get(size)
        result[f"mse_{size}"] = judge(learner, params, family, size) | {"published": published}
    print(json.dumps(result))


def judge(learner: GradientBased, params: Params, family: Sinusoids, size: int) -> dict[str, str]:
    """The row's MSE at a support size beside the start's, ten steps', and the oracle's."""
    world = replace(family, support_size=size, query_size=TEST_POINTS)
    tasks = world.sample(TEST_TASKS, torch_generator(1, "test", size))
    nothing = {**tasks.support, "mask": torch.zeros_like(tasks.support["mask"])}
    found = {
        "adapted": errors(learner, params, tasks.support, tasks.query),
        "start": errors(learner, params, nothing, tasks.query),
        "oracle_ridge": oracle_errors(family, tasks.support, tasks.query),
    }
    if 0 < learner.num_inner_steps < 10:
        longer = replace(learner, num_inner_steps=10)
        found["ten_steps"] = errors(longer, params, tasks.support, tasks.query)
    return {name: interval(values) for name, values in found.items()}


def errors(learner: GradientBased, params: Params, support: Examples, query: Examples) -> Tensor:
    """Each task's MSE after adapting, `[T]`."""
    predictions = learner.score(params, learner.adapt(params, support), query["x"])
    return (predictions - query["y"]).square().mean((1, 2))


def oracle_errors(family: Sinusoids, support: Examples, query: Examples) -> Tensor:
    """Each task's MSE of a ridge regression on sin and cos of the family's frequencies, `[T]`."""
    frequencies = torch.linspace(family.min_frequency, family.max_frequency, 5).unique()

    def features(x: Tensor) -> Tensor:
        return torch.cat([torch.sin(frequencies * x), torch.cos(frequencies * x)], -1)

    def one(support: Examples, query: Examples) -> Tensor:
        x = features(support["x"])
        weights = ridge(x, support["y"], support["mask"], torch.tensor(1e-3))
        return (features(query["x"]) @ weights - query["y"]).square().mean()

    return torch.func.vmap(one)(support, query)


def interval(values: Tensor) -> str:
    """The mean and the half width of its 95% interval."""
    return f"{values.mean():.3f} +- {1.96 * values.std() / len(values) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
