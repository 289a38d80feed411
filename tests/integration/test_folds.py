"""Folds on a real cluster: jobs run, what is there is not run again, and errors come back whole."""

import pytest
import torch

from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import AdaptationError
from raymeta.evaluation.fold import EvaluationSettings
from raymeta.evaluation.summary import summarise
from raymeta.experiments.folds import plan, run_jobs
from tests.helpers.shops import SHOP, write_grouped_shop

pytestmark = pytest.mark.ray

SETTINGS = EvaluationSettings((0, 1, 2), baselines=("popularity",))


def make_fit(log):
    """Nested, so that it travels to the workers by value: they cannot import tests."""
    path = str(log)

    class SameGroup:
        def adapt(self, meta_params, support):
            group = torch.arange(40) // 10
            same = group[support["item"]].unsqueeze(-1) == group
            return {"liked": (same * support["mask"].unsqueeze(-1)).sum(1).float()}

        def score(self, meta_params, state, candidates=None):
            return state["liked"]

    def fit(experiment, data_dir, folder):
        if not (folder / "model").is_file():
            (folder / "model").write_text("trained")
            with open(path, "a") as file:
                file.write(f"{experiment.data.split.fold}\n")
        return SameGroup(), {}

    return fit


def make_failing_fit():
    def fit(experiment, data_dir, folder):
        from raymeta.errors import AdaptationError

        raise AdaptationError("The loss is NaN at step 3.", remedy="Lower training.outer_lr.")

    return fit


def test_folds_run_once_resume_and_report_what_failed(tmp_path):
    from raymeta import runtime

    shop = write_grouped_shop(tmp_path / "shop")
    log = tmp_path / "trained"
    experiment = ExperimentConfig(name="shop", data=SHOP)
    jobs = plan(experiment, shop, SETTINGS, cells=tmp_path / "cells", num_folds=2, seeds=(0,))
    with runtime.session(num_cpus=2):
        with pytest.raises(AdaptationError, match="NaN at step 3") as failure:
            run_jobs(jobs, fit=make_failing_fit())
        assert failure.value.remedy == "Lower training.outer_lr."

        scores = run_jobs(jobs, fit=make_fit(log))
        assert sorted(log.read_text().split()) == ["0", "1"]
        result = summarise(scores)
        assert result["methods"]["adapted"]["2"]["ndcg_at_10"]["mean"] > 0.75
        assert result["num_users"]["1"] > 90

    # all cells are there: neither a cluster nor a fit is needed
    again = run_jobs(jobs, fit=make_failing_fit())
    assert [part.table.equals(whole.table) for part, whole in zip(again, scores, strict=True)]
