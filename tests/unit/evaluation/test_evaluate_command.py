"""`raymeta evaluate`: what it prints and writes, and what it says of a wrong request."""

import json

import pytest
import torch
import yaml

from raymeta.cli.evaluate import parse_names, parse_numbers, parse_sizes
from raymeta.cli.main import run
from raymeta.config.base import load_settings
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.episodes import ALL_BUT_LAST
from raymeta.errors import ConfigError
from raymeta.evaluation.fold import EvaluationSettings
from raymeta.experiments.folds import compute_job, plan
from tests.helpers.shops import SHOP, write_grouped_shop


class SameGroup:
    """Scores items by how many of their group of ten were bought."""

    def adapt(self, meta_params, support):
        group = torch.arange(40) // 10
        same = group[support["item"]].unsqueeze(-1) == group
        return {"liked": (same * support["mask"].unsqueeze(-1)).sum(1).float()}

    def score(self, meta_params, state, candidates=None):
        return state["liked"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_grouped_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def experiment_file(shop):
    path = shop / "experiment.yaml"
    path.write_text(yaml.safe_dump({"name": "shop", "data": SHOP.model_dump(mode="json")}))
    return path


@pytest.fixture(scope="module")
def report(shop, experiment_file):
    """A report's folder whose cells were computed here, so that no cluster is needed."""
    folder = shop / "report"
    settings = EvaluationSettings((0, 1, 2), baselines=("popularity", "item_knn"))
    experiment = load_settings(ExperimentConfig, experiment_file)
    jobs = plan(experiment, shop, settings, cells=folder / "cells", num_folds=2, seeds=(0,))
    for job in jobs:
        compute_job(job, lambda *_: (SameGroup(), {}))
    return folder


def command(shop, experiment_file, report, *more):
    return [
        "evaluate", str(experiment_file), "--data", str(shop), "--folds", "2",
        "--baselines", "popularity,item_knn", "--out", str(report), *more,
    ]  # fmt: skip


def test_json_goes_to_stdout_and_the_report_is_written(shop, experiment_file, report, capsys):
    assert run(command(shop, experiment_file, report, "--json")) == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert out.count("\n") == 1
    assert result["report"] == str(report)
    assert result["support_sizes"] == [0, 1, 2]
    assert result["differences"]["popularity"]["2"]["ndcg_at_10"]["low"] > 0
    stored = json.loads((report / "results.json").read_text())
    assert stored["methods"] == result["methods"]
    page = (report / "report.md").read_text()
    assert "Every user is a test user once, over 2 folds" in page
    assert (report / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_people_get_tables(shop, experiment_file, report, capsys):
    assert run(command(shop, experiment_file, report)) == 0
    out = capsys.readouterr().out
    for words in ("nDCG@10 of new users after so many visits", "Recall@20", "item-kNN", "chance"):
        assert words in out
    assert "[bold]" not in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--support-sizes", "1,x"], "'x' is not a whole number"),
        (["--seeds", "-1"], "'-1' is not a whole number"),
        (["--locked"], "an artifact, not an experiment"),
        (["--set", "data.unti=items"], "Did you mean 'unit'?"),
        (["--baselines", "slim"], "There is no baseline 'slim'"),
        (["--set", "data.positive_events=[view]"], "'view' does not occur"),
    ],
)
def test_a_wrong_request_ends_with_2(shop, experiment_file, tmp_path, capsys, more, message):
    arguments = ["evaluate", str(experiment_file), "--data", str(shop), "--folds", "2"]
    code = run([*arguments, "--out", str(tmp_path / "report"), *more])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report" / "results.json").exists()


def test_a_folder_of_something_else_is_refused_before_any_work(
    shop, experiment_file, tmp_path, capsys
):
    (tmp_path / "thesis.tex").write_text("")
    assert run(command(shop, experiment_file, tmp_path)) == 2
    assert "other than a report" in capsys.readouterr().err


def test_data_must_be_named_somewhere(experiment_file, tmp_path, capsys):
    assert run(["evaluate", str(experiment_file), "--out", str(tmp_path / "report")]) == 2
    assert "Add --data" in capsys.readouterr().err


def test_folds_need_an_experiment(shop, tmp_path, capsys):
    assert run(["evaluate", str(tmp_path), "--data", str(shop), "--folds", "2"]) == 2
    assert "--folds needs an experiment file" in capsys.readouterr().err


def test_lists_on_the_command_line():
    assert parse_sizes("20,50,all") == (20, 50, ALL_BUT_LAST)
    assert parse_numbers("0, 1,20", "--support-sizes") == (0, 1, 20)
    assert parse_numbers(None, "--support-sizes") is None
    assert parse_names("ease,ials") == ("ease", "ials")
    assert parse_names("none") == ()
    with pytest.raises(ConfigError, match=r"'1\.5'"):
        parse_numbers("1.5", "--seeds")
