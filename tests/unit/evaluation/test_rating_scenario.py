"""Ratings end to end on worlds with known answers: kindness and taste, and nothing at all."""

from dataclasses import replace
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
import torch

from raymeta.algorithms.outer import meta_train
from raymeta.config.build import build_algorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import History, SupportView
from raymeta.data.features import FeatureVocab
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit, with_cold_items
from raymeta.evaluation.rating_report import summarise, text_tables, to_markdown
from raymeta.evaluation.ratings import hold_back
from raymeta.evaluation.scenarios.table import evaluation_settings, open_scenario
from raymeta.train.batches import EpisodeSampler

NUM_ITEMS, NUM_RATINGS = 60, 24


def world(*, kindness: float, taste: float, num_users: int = 200) -> TaskSplit:
    """Users who differ in how they rate, and in how much more they like one half of the items."""
    rng = np.random.default_rng(0)
    quality = rng.normal(0.0, 0.4, NUM_ITEMS)
    side = np.arange(NUM_ITEMS) % 2
    items = np.array([rng.choice(NUM_ITEMS, NUM_RATINGS, False) for _ in range(num_users)])
    kind = rng.normal(0.0, kindness, (num_users, 1))
    likes = rng.normal(0.0, taste, (num_users, 1)) * (2 * side[items] - 1)
    noise = rng.normal(0.0, 0.5, items.shape)
    ratings = np.clip(np.round(3.1 + quality[items] + kind + likes + noise), 1, 5)
    zeros = np.zeros(items.size, np.int64)
    times = np.tile(np.arange(NUM_RATINGS), num_users).astype(np.int64)
    values = ratings.ravel().astype(np.float32)
    events = History(items.ravel(), zeros, times, values, zeros)
    ids = np.array([f"u{n:03}" for n in range(num_users)])
    users = UserTasks(ids, np.arange(num_users + 1) * NUM_RATINGS, events)
    table = pa.table({"item_id": [f"i{n:02}" for n in range(NUM_ITEMS)], "side": [*"ab"] * 30})
    kinds = {"side": "categorical"}
    parts = np.split(np.arange(num_users), [num_users // 2, 3 * num_users // 4])
    return TaskSplit(
        catalogue=Catalogue(table, kinds, FeatureVocab.count(table, kinds)),
        event_types=("rating",),
        positive_types=(0,),
        view=SupportView(512, (0,)),
        train=users.take(parts[0]),
        validation=users.take(parts[1]),
        test=users.take(parts[2]),
        locked=users.take(parts[0][:0]),
        dataset_sha256="0",
    )


def experiment(*, vector_dim: int = 0, **scenario: object) -> ExperimentConfig:
    order = scenario.get("judged_by") == "order"
    return ExperimentConfig.parse(
        {
            "name": "ratings",
            "scenario": {"name": "ratings", "num_query": 10, **scenario},
            "data": {"unit": "items", "support_sizes": [1, 5, 14], "positive_events": ["rating"]},
            "model": {
                "name": "rating_regression",
                "outer_loss": "order" if order else "error",
                "vector_dim": vector_dim,
            },
            "algorithm": {"name": "ridge"},
        },
        source="test",
    )


def evaluated(split: TaskSplit, config: ExperimentConfig, *, baselines: tuple[str, ...] = ()):
    scenario = open_scenario(config, split)
    learner = build_algorithm(config, split)
    sampler = EpisodeSampler(
        split.train, scenario, support_sizes=(1, 5, 14), tasks_per_batch=32, seed=0
    )
    batches = (sampler.batch(step) for step in count())
    params = meta_train(learner, batches, num_steps=30, outer_lr=0.03)
    settings = evaluation_settings(config, baselines=baselines)
    scores = [
        scenario.score_adapted(learner, params, settings),
        scenario.score_baselines(settings, note=lambda _: None),
    ]
    return summarise(scores)


def mean(result, method: str, size: int, metric: str = "mae") -> float:
    return result["methods"][method][str(size)][metric]["mean"]


def test_what_is_known_of_a_user_lowers_the_error_below_that_of_biases() -> None:
    split = world(kindness=0.6, taste=0.6)
    result = evaluated(split, experiment(), baselines=("item_mean", "user_item_bias"))
    errors = [mean(result, "adapted", size) for size in (1, 5, 14)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < mean(result, "user_item_bias", 14) - 0.1  # which knows no taste
    assert mean(result, "user_item_bias", 14) < mean(result, "item_mean", 14) - 0.05
    assert result["differences"]["user_item_bias"]["14"]["mae"]["high"] < 0
    result["protocol"] = {"name": "world", "split": "One split"}
    tables, _ = text_tables(result)
    assert any("MAE" in table.title for table in tables)
    result["run"] = {"command": "", "wall_s": 0.0, "peak_memory_mb": 0.0, "versions": {}}
    assert "user_shrinkage" in to_markdown(result)


def test_taste_puts_items_in_order_and_chance_does_not() -> None:
    split = world(kindness=0.6, taste=0.6)
    config = experiment(query="random", num_draws=2, judged_by="order")
    result = evaluated(split, config)
    assert (
        mean(result, "adapted", 14, "ndcg_at_5") > mean(result, "unadapted", 14, "ndcg_at_5") + 0.05
    )
    assert mean(result, "chance", 14, "precision_at_5") == pytest.approx(0.5, abs=0.02)
    assert mean(result, "ceiling", 14, "ndcg_at_5") > 0.85


def test_taste_that_no_feature_names_is_in_the_vectors() -> None:
    split = world(kindness=0.6, taste=0.6)
    nameless = split.catalogue.items.set_column(1, "side", pa.array(["a"] * NUM_ITEMS))
    kinds = split.catalogue.kinds
    blind = Catalogue(nameless, kinds, FeatureVocab.count(nameless, kinds))
    split = replace(split, catalogue=blind)
    errors = [mean(evaluated(split, experiment(vector_dim=dim)), "adapted", 14) for dim in (0, 2)]
    assert errors[1] < errors[0] - 0.05


def test_where_users_do_not_differ_adapting_gains_nothing() -> None:
    """A gain would be a leak of what is held back."""
    split = world(kindness=0.0, taste=0.0)
    result = evaluated(split, experiment(vector_dim=4))
    for size in (1, 14):
        gain = result["differences"]["unadapted"][str(size)]["mae"]
        assert gain["low"] <= 0.0 <= gain["high"] or abs(gain["mean"]) < 0.005


def test_rows_of_a_training_user_carry_exactly_what_was_counted_of_them() -> None:
    split = world(kindness=0.6, taste=0.6)
    scenario = open_scenario(experiment(), split)
    batch = scenario.task_batch([split.train[user] for user in range(100)], [5] * 100)
    counted = torch.zeros(NUM_ITEMS, 2).double()
    for rows in (batch.support, batch.query):
        both = torch.stack([rows["counted"], rows["counted_value"]], -1).double()
        counted.index_add_(0, rows["item"].flatten(), both.flatten(0, 1))
    table = build_algorithm(experiment(), split).tables()["item_counts"].double()
    torch.testing.assert_close(counted, table, atol=1e-3, rtol=0)


def test_items_known_by_features_only_are_judged_alone_and_seen_by_nobody() -> None:
    split = with_cold_items(world(kindness=0.6, taste=0.9), share=0.3)
    cold = np.flatnonzero(split.cold)
    assert 0.15 * NUM_ITEMS < len(cold) < 0.45 * NUM_ITEMS
    assert not np.isin(split.train.events.item, cold).any()
    tasks = hold_back(split.test, num_query=10, cold=split.cold)
    assert np.isin(np.concatenate(tasks.items), cold).all()
    assert not any(np.isin(support.item, cold).any() for support in tasks.supports)
    result = evaluated(split, experiment(vector_dim=2), baselines=("item_mean",))
    # the side of an item tells who likes it; its mean rating is not known
    assert mean(result, "adapted", 14) < mean(result, "item_mean", 14) - 0.05
    assert mean(result, "item_mean", 14) == pytest.approx(mean(result, "chance", 14), abs=0.05)
