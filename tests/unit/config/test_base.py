"""What is wrong with settings is said by key path, value and remedy; files extend files."""

from pathlib import Path
from typing import Any

import pytest

from raymeta.config.base import load_settings, load_yaml
from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.parse({"name": "shop", **values}, source="shop.yaml")
    assert "Value error" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"training": {"outer_lr": -0.1}},
            "shop.yaml: 'training.outer_lr' is -0.1: Input should be greater than 0. "
            "Correct this value.",
        ),
        (
            {"training": {"outr_lr": 0.1}},
            "shop.yaml: unknown key 'training.outr_lr'. Did you mean 'outer_lr'?",
        ),
        (
            {"data": {"split": {"fold": 7}}},
            "shop.yaml: 'data.split': fold 7 does not exist in 5 folds. Correct this value.",
        ),
        ({"algorithm": {"name": "mmal"}}, "shop.yaml: 'algorithm' has no name 'mmal'. Did you"),
        (
            {"algorithm": {"name": "meta_sgd", "inner_optimizer": "adam"}},
            "shop.yaml: unknown key 'algorithm.inner_optimizer'. Did you mean 'inner_lr'?",
        ),
        ({"name": "a b"}, "shop.yaml: 'name' is 'a b': String should match pattern"),
        ({"training": {"num_workers": 0}}, "'training.num_workers' is 0: Input should be greater"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(values: dict[str, Any], expected: str) -> None:
    assert expected in message(values)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"shop\.yaml: 'name' is missing\. Add it\."):
        ExperimentConfig.parse({}, source="shop.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed.of=1", "'seed' is 3, so there is no 'seed.of'. Correct the path."),
        ("seed=[1", "'[1' is not a YAML value. Close its brackets and quotes."),
        ("=1", "--set '=1' is not of the form path=value."),
    ],
)
def test_an_override_that_cannot_be_meant(tmp_path: Path, override: str, expected: str) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("name: shop\nseed: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(ExperimentConfig, file, [override])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n", "holds list, not a mapping of settings"),
        ("name: [shop\n", "is not valid YAML"),
        ("extends: shop.yaml\n", "extends itself"),
        ("extends: gone.yaml\n", "There is no settings file"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_yaml(tmp_path / "shop.yaml")


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes("name: café\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_yaml(tmp_path / "shop.yaml")


def test_a_section_of_another_name_replaces_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text(
        "name: shop\nalgorithm: {name: meta_sgd, inner_lr: 0.1, num_inner_steps: 2}\n"
    )
    (tmp_path / "same.yaml").write_text("extends: below.yaml\nalgorithm: {inner_lr: 0.2}\n")
    (tmp_path / "other.yaml").write_text("extends: below.yaml\nalgorithm: {name: anil}\n")
    same = load_yaml(tmp_path / "same.yaml")["algorithm"]
    assert same == {"name": "meta_sgd", "inner_lr": 0.2, "num_inner_steps": 2}
    assert load_yaml(tmp_path / "other.yaml")["algorithm"] == {"name": "anil"}
