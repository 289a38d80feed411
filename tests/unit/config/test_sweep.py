"""What may vary in a sweep, and every way to get it wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raymeta.config.sweep import Distribution, experiment_with, load_sweep
from raymeta.errors import ConfigError


def write(folder: Path, **sweep: Any) -> Path:
    (folder / "shop.yaml").write_text("name: shop\n")
    values = {
        "name": "inner",
        "experiment": "shop.yaml",
        "vary": {"algorithm.inner_lr": {"loguniform": [0.01, 1.0]}},
        **sweep,
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_numbers_are_read_as_people_write_them() -> None:
    # YAML 1.1 reads 1e-3 as text
    way = Distribution.parse(yaml.safe_load("{loguniform: [1e-3, 1e0]}"), source="test")
    assert way.loguniform == (0.001, 1.0)
    way = Distribution.parse(yaml.safe_load("{choice: [1e-3, anil, 2]}"), source="test")
    assert way.choice == (0.001, "anil", 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"randint": [5, 1]}, "lower bound below the upper, not 5 and 1"),
        ({"uniform": [1.0, 1.0]}, "lower bound below the upper"),
        ({"loguniform": [0, 1]}, "bounds above zero, not 0.0"),
        ({"choice": []}, "nothing to choose from"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one of"),
        ({}, "exactly one of"),
        ({"randint": [1.5, 3]}, "1.5"),
        ({"lognormal": [0, 1]}, "unknown key 'lognormal'. Did you mean 'loguniform'?"),
        ({"uniform": [0, 1, 2]}, "'uniform'"),
    ],
)
def test_a_wrong_distribution_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Distribution.parse(spec, source="test")


def test_fixed_values_reach_the_experiment(tmp_path: Path) -> None:
    path = write(tmp_path, fixed={"training.max_outer_steps": 7})
    sweep, base = load_sweep(path, ["fixed.training.patience=2", "num_samples=3"])
    assert base.training.max_outer_steps == 7
    assert base.training.patience == 2
    assert sweep.num_samples == 3


def test_a_range_can_be_overridden_by_its_path(tmp_path: Path) -> None:
    override = "vary.algorithm.inner_lr.loguniform=[0.1, 0.2]"
    sweep, _ = load_sweep(write(tmp_path), [override])
    assert sweep.vary["algorithm.inner_lr"].loguniform == (0.1, 0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vary": {"algorithm.inner_rate": {"uniform": [0.1, 1]}}}, "unknown key"),
        ({"vary": {"algorithm.num_inner_steps": {"randint": [1, 500]}}}, "is 500"),
        ({"vary": {"algorithm.name": {"choice": ["anil", "adam"]}}}, "'adam'"),
        ({"vary": {"algorithm.inner_lr": {"uniform": [-1, 1]}}}, "is -1.0"),
        ({"vary": {"algorithm": {"choice": ["anil"]}}}, "'algorithm' is a section"),
        ({"vary": {}}, "'vary' is {}"),
        ({"fixed": {"algorithm.inner_lr": 0.2}}, "both varies and is fixed"),
        ({"experiment": "absent.yaml"}, "There is no settings file"),
        ({"num_samples": 0}, "'num_samples' is 0"),
        ({"search": "grid"}, "'search' is 'grid'"),
    ],
)
def test_a_wrong_sweep_is_refused_before_any_trial(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(tmp_path, **values))


def test_a_trials_experiment_is_validated(tmp_path: Path) -> None:
    _, base = load_sweep(write(tmp_path))
    assert experiment_with(base, {"algorithm.inner_lr": 0.7}, source="t").algorithm.inner_lr == 0.7
    assert base.algorithm.inner_lr != 0.7
    with pytest.raises(ConfigError, match="trial 3"):
        experiment_with(base, {"algorithm.inner_lr": -0.5}, source="trial 3")
