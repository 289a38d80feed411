"""The command line of a job."""

import shlex
from pathlib import Path

import pytest

from raymeta.errors import ConfigError
from raymeta.jobs.entrypoint import entrypoint

CWD = Path("/shop")


def words(*given: str) -> list[str]:
    return shlex.split(entrypoint(given, verbs={"train", "evaluate", "config"}, cwd=CWD))


def test_paths_of_data_and_results_become_absolute() -> None:
    assert words("train", "a b.yaml", "--data", "runs/d", "--out=../o", "--set", "seed=1") == [
        *["python", "-m", "raymeta", "train", "a b.yaml"],
        *["--data", "/shop/runs/d", "--out=/o", "--set", "seed=1"],
    ]


def test_a_uri_stays_as_it_is() -> None:
    assert words("train", "x.yaml", "--out", "s3://b/o")[-1] == "s3://b/o"


def test_any_other_program_is_run_as_given() -> None:
    assert words("python", "mine.py", "--out", "x y") == ["python", "mine.py", "--out", "x y"]


def test_a_verb_that_writes_must_be_told_where() -> None:
    with pytest.raises(ConfigError, match="'train' has no --out"):
        words("train", "x.yaml")
    assert words("config", "check", "x.yaml")[-1] == "x.yaml"
    assert words("train", "--help")[-1] == "--help"


def test_nothing_to_run() -> None:
    with pytest.raises(ConfigError, match="nothing to run"):
        words()
