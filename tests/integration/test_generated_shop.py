"""The generated shop has a known truth: what is learned agrees with it, and no more than that."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata

from raymeta.artifact import load_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.data import DataConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.data.prepare import prepare
from raymeta.data.sources.synthetic import SyntheticShop
from raymeta.data.synthetic_shop import Shop, purchase_rates
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.adapted import AdaptedScorer, UnadaptedScorer
from raymeta.evaluation.metrics import user_metrics
from raymeta.evaluation.protocol import cut_tasks, score_tasks
from raymeta.train.run import train_in_process

DATA = DataConfig(
    support_events=("view", "click", "cart", "purchase"),
    min_item_users=3,
    min_units=4,
    support_sizes=(0, 1, 3),
)
EXPERIMENT = ExperimentConfig(
    name="shop",
    data=DATA,
    # agreement is judged on all items, so the loss is that of all later items too
    model=FactorizationConfig(dim=24, regularisation=30.0, outer_loss="softmax"),
    algorithm=CaviaConfig(inner_lr=1.0),
    training=TrainingConfig(tasks_per_batch=32, max_outer_steps=10, validate_every=5),
)


@dataclass(frozen=True)
class Learned:
    """nDCG@10 of the test users after three visits, a row a user.

    Attributes:
        ndcg: `adapted`, `unadapted`, and `best`: the order by the shop's own purchase rates.
        agreement: rank correlation of all scores with those rates, `adapted` and `unadapted`.
    """

    ndcg: pd.DataFrame
    agreement: pd.DataFrame


def learn(folder: Path, *, tastes: bool) -> Learned:
    shop = Shop(num_users=800, num_items=240, num_visits=16_000, seed=3, tastes=tastes)
    prepare(SyntheticShop(shop), folder / "data")
    train_in_process(EXPERIMENT, folder / "data", out=folder / "artifact")
    artifact, split = load_artifact(folder / "artifact"), load_task_split(folder / "data", DATA)
    num_items = len(split.catalogue)
    (tasks,) = cut_tasks(split.test, [3], unit="visits", positive_types=split.positive_types)
    users = number_of(split.test.user_ids)[tasks.user_rows]
    rates = purchase_rates(shop, users)[:, number_of(np.array(split.catalogue.item_ids))]
    masked = torch.from_numpy(rates).masked_fill(tasks.masked(num_items), -torch.inf)
    best, _ = user_metrics(masked, tasks.relevant(num_items))
    ndcg, agreement = {"best": best["ndcg_at_10"].numpy()}, {}
    for name, kind in (("adapted", AdaptedScorer), ("unadapted", UnadaptedScorer)):
        scorer = kind(artifact.algorithm, artifact.meta_params, view=artifact.view)
        ndcg[name] = score_tasks(scorer, [tasks], num_items=num_items).users["ndcg_at_10"]
        agreement[name] = rank_correlation(scorer.score(tasks.supports), rates)
    return Learned(pd.DataFrame(ndcg), pd.DataFrame(agreement))


def number_of(ids: np.ndarray) -> np.ndarray:
    return np.array([int(text.split("-")[1]) for text in ids])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's, a row at a time."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    centred = [values - values.mean(axis=1, keepdims=True) for values in ranks]
    product = (centred[0] * centred[1]).sum(axis=1)
    return product / np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))


def gain(table: pd.DataFrame) -> tuple[float, float]:
    """The mean of what adapting adds, and its standard error."""
    difference = table["adapted"] - table["unadapted"]
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def test_adapting_finds_the_tastes_that_the_shop_was_made_with(tmp_path: Path) -> None:
    learned = learn(tmp_path, tastes=True)
    added, error = gain(learned.ndcg)
    means = learned.ndcg.mean()
    print(f"nDCG@10 {means.round(3).to_dict()}, {added:.3f} +- {error:.3f} by adapting")
    assert added > 4 * error
    assert means["adapted"] > 2 * means["unadapted"]
    assert means["adapted"] < means["best"], "nothing beats the truth"
    added, error = gain(learned.agreement)
    print(f"agreement {learned.agreement.mean().round(3).to_dict()}")
    assert added > error


def test_without_tastes_adapting_gains_nothing(tmp_path: Path) -> None:
    learned = learn(tmp_path, tastes=False)
    added, error = gain(learned.ndcg)
    means = learned.ndcg.mean()
    print(f"nDCG@10 {means.round(3).to_dict()}, {added:.3f} +- {error:.3f} by adapting")
    assert added < 2 * error, "a gain where nothing can be known is a leak"
    assert means["unadapted"] == pytest.approx(means["best"], abs=0.02)
