"""`raymeta config`: the whole file, what differs, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from raymeta.cli.main import run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("name: shop\nalgorithm: {name: anil, inner_lr: 0.1}\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nalgorithm: {inner_lr: 0.3}\n")
    return tmp_path


def test_show_merges_and_fills_in(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", str(files / "child.yaml"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = {"name": "anil", "inner_lr": 0.3, "inner_optimizer": "sgd"}
    assert shown["algorithm"].items() >= expected.items()
    assert shown["data"]["split"]["num_folds"] == 5


def test_what_show_prints_is_a_valid_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", str(files / "child.yaml"), "--set", "seed=4"]) == 0
    (files / "whole.yaml").write_text(capsys.readouterr().out)
    assert run(["config", "diff", str(files / "child.yaml"), str(files / "whole.yaml")]) == 0
    assert "seed: 0 -> 4" in capsys.readouterr().out


def test_diff_names_what_differs_and_nothing_else(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "diff", str(files / "base.yaml"), str(files / "child.yaml")]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["algorithm.inner_lr: 0.1 -> 0.3"]
    assert run(["config", "diff", str(files / "base.yaml"), str(files / "base.yaml")]) == 0
    assert "say the same" in capsys.readouterr().out


def test_show_says_what_a_user_costs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show = ["config", "show", str(files / "base.yaml"), "--set", "model.name=factorization"]
    show += ["--set", "model.dim=32"]
    assert run(show) == 0
    assert "# A user's adapted state takes 128 bytes." in capsys.readouterr().out
    assert run([*show, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["user_state_bytes"] == 128


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.inner_lrr=1", "unknown key 'algorithm.inner_lrr'. Did you mean"),
        ("algorithm.inner_lr=-1", "'algorithm.inner_lr' is -1: Input should be greater"),
        ("training.num_workers=two", "'training.num_workers' is 'two'"),
        ("seed", "--set 'seed' is not of the form path=value"),
    ],
)
def test_a_wrong_override_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert run(["config", "check", str(files / "base.yaml"), "--set", override]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", "nowhere.yaml"]) == 2
    assert "There is no settings file nowhere.yaml." in capsys.readouterr().err


def test_a_serve_file_is_checked_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("applications:\n  - name: a\n    args: {retentoin: {}}\n")
    assert run(["config", "check", str(file)]) == 2
    assert "unknown key 'retentoin'. Did you mean 'retention'?" in (
        capsys.readouterr().err.replace("\n", " ")
    )
    assert run(["config", "check", str(file), "--set", "seed=1"]) == 2
    assert "--set does not reach into" in capsys.readouterr().err
