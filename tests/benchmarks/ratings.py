"""Protocol P3 on MovieLens: ratings of new users, MeLU's estimator beside item and user biases.

Users with 13 to 100 ratings; a user's last 10 are predicted from those before. Every user is a test
user once, over the folds. What tuning there is (the number of outer steps, the shrinkage of the
biases) looks at validation users only.

    raymeta prepare movielens --path ml-100k.zip --out DIR
    python tests/benchmarks/ratings.py DIR --algorithm maml --algorithm meta_sgd
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.outer import meta_train
from raymeta.config.build import build_algorithm
from raymeta.config.experiment import (
    DataConfig,
    ExperimentConfig,
    PreferenceMlpConfig,
    SplitConfig,
)
from raymeta.data.events import History
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.evaluation.bootstrap import interval, resampled_means
from raymeta.evaluation.ratings import (
    AdaptedRatings,
    ItemMean,
    RatingPredictor,
    RatingTasks,
    UserItemBias,
    hold_back,
    rating_errors,
)
from raymeta.evaluation.scenarios.recommend import Recommend
from raymeta.train.batches import EpisodeSampler
from raymeta.types import Params, TaskBatch

NUM_FOLDS = 5
MIN_RATINGS, MAX_RATINGS = 13, 100
NUM_QUERY = 10
SUPPORT_SIZES = (1, 3, 5, 10, None)
SHRINKAGES = (1.0, 2.0, 4.0, 8.0, 16.0)
STEPS_BETWEEN_LOOKS = 25


def split_of(data: Path, fold: int, *, user_features: bool) -> TaskSplit:
    config = DataConfig(
        unit="items",
        positive_events=("rating",),
        min_item_users=1,
        min_units=MIN_RATINGS,
        user_features=user_features,
        split=SplitConfig(
            num_folds=NUM_FOLDS, fold=fold, locked_fraction=0.0, validation_fraction=0.15
        ),
    )
    split = load_task_split(data, config)
    parts = {n: bounded(getattr(split, n)) for n in ("train", "validation", "test")}
    return replace(split, **parts)


def bounded(users: UserTasks) -> UserTasks:
    return users.take(np.flatnonzero(np.diff(users.offsets) <= MAX_RATINGS))


def batches(split: TaskSplit, *, tasks_per_batch: int, seed: int) -> Iterator[TaskBatch]:
    sizes = (1, 3, 5, 10, 20, 40, 80)
    config = DataConfig(unit="items", support_sizes=sizes)
    sampler = EpisodeSampler(
        split.train,
        Recommend(ExperimentConfig(name="ratings", data=config), split),
        support_sizes=sizes,
        tasks_per_batch=tasks_per_batch,
        seed=seed,
    )
    return (sampler.batch(step) for step in count())


def trained(
    learner: GradientBased, split: TaskSplit, options: argparse.Namespace, seed: int
) -> Params:
    """The meta-parameters that are best on validation users; says when, and how good."""
    validation = hold_back(split.validation, num_query=NUM_QUERY)
    source = batches(split, tasks_per_batch=options.tasks_per_batch, seed=seed)
    params = learner.init(torch.Generator().manual_seed(seed))
    best, best_error, best_step = params, float("inf"), 0
    for step in range(0, options.steps + 1, STEPS_BETWEEN_LOOKS):
        predictor = AdaptedRatings(learner, params, view=split.view)
        error = float(rating_errors(predictor, validation)["mae"].mean())
        if error < best_error:
            best, best_error, best_step = params, error, step
        params = meta_train(
            learner,
            source,
            num_steps=STEPS_BETWEEN_LOOKS,
            outer_lr=options.outer_lr,
            params=params,
        )
    print(f"best after {best_step} outer steps, validation MAE {best_error:.4f}", flush=True)
    return best


def baselines(split: TaskSplit) -> dict[str, RatingPredictor]:
    facts = {"num_items": len(split.catalogue), "positive_types": split.positive_types}
    validation = hold_back(split.validation, num_query=NUM_QUERY)
    biases = [UserItemBias(split.train, user_shrinkage=s, **facts) for s in SHRINKAGES]
    best = min(biases, key=lambda b: float(rating_errors(b, validation)["mae"].mean()))
    return {"item mean": ItemMean(split.train, **facts), "user and item bias": best}


def unadapted(tasks: RatingTasks) -> RatingTasks:
    """The same users without their events; what is known of them otherwise stays."""
    return replace(tasks, supports=[History.empty(s.features) for s in tasks.supports])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--algorithm", action="append", default=[])
    parser.add_argument("--folds", type=int, default=NUM_FOLDS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tasks-per-batch", type=int, default=32)
    parser.add_argument("--outer-lr", type=float, default=0.003)
    parser.add_argument("--inner-lr", type=float, default=0.1)
    parser.add_argument("--inner-steps", type=int, default=2)
    parser.add_argument("--baseline", choices=["item", "none"], default="item")
    parser.add_argument("--no-user-features", action="store_true")
    parser.add_argument("--fast-first-layer", action="store_true")
    parser.add_argument("--item-ids", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, int | None], list[dict[str, NDArray[np.float64]]]] = {}
    began = time.monotonic()
    for fold in range(options.folds):
        split = split_of(options.data, fold, user_features=not options.no_user_features)
        predictors = baselines(split)
        for name in options.algorithm or ["maml"]:
            for seed in range(options.seeds):
                experiment = ExperimentConfig.parse(
                    {
                        "name": "ratings",
                        "model": PreferenceMlpConfig(
                            feedback="ratings",
                            baseline=options.baseline,
                            fast_first_layer=options.fast_first_layer,
                            item_ids=options.item_ids,
                        ),
                        "algorithm": {
                            "name": name,
                            "inner_lr": options.inner_lr,
                            "num_inner_steps": options.inner_steps,
                        },
                    },
                    source="options",
                )
                learner = build_algorithm(experiment, split)
                print(f"fold {fold} {name} seed {seed}:", end=" ", flush=True)
                params = trained(learner, split, options, seed)
                predictors[f"{name}, seed {seed}"] = AdaptedRatings(
                    learner, params, view=split.view
                )
        for size in SUPPORT_SIZES:
            tasks = hold_back(split.test, num_query=NUM_QUERY, support_size=size)
            for name, predictor in predictors.items():
                found.setdefault((name, size), []).append(rating_errors(predictor, tasks))
                if size is None and isinstance(predictor, AdaptedRatings):
                    without = rating_errors(predictor, unadapted(tasks))
                    found.setdefault((f"{name}, unadapted", None), []).append(without)
    show(found, seeds=options.seeds)
    print(f"{time.monotonic() - began:.0f} s")


def show(
    found: dict[tuple[str, int | None], list[dict[str, NDArray[np.float64]]]], *, seeds: int
) -> None:
    pooled = {
        key: {m: np.concatenate([part[m] for part in parts]) for m in ("mae", "ndcg_at_3")}
        for key, parts in found.items()
    }
    names = dict.fromkeys(name.split(", seed ")[0] for name, _ in pooled)
    print(
        "| | ratings seen | users | MAE | less the biases' (95%) | nDCG@3 |\n"
        "|---|---|---|---|---|---|"
    )
    for name in names:
        for kind in ("", ", unadapted"):
            for size in SUPPORT_SIZES:
                of = [
                    pooled[key]
                    for key in [
                        (f"{name}{kind}", size),
                        *((f"{name}, seed {seed}{kind}", size) for seed in range(seeds)),
                    ]
                    if key in pooled
                ]
                if not of:
                    continue
                mae = np.mean([run["mae"] for run in of], axis=0)
                ndcg = np.mean([run["ndcg_at_3"] for run in of])
                gap = mae - pooled["user and item bias", size]["mae"]
                drawn = resampled_means(gap[:, None], np.random.default_rng(0))
                low, high = (float(end[0]) for end in interval(drawn))
                seen = "all" if size is None else str(size)
                print(
                    f"| {name}{kind} | {seen} | {len(mae)} | {mae.mean():.3f} "
                    f"| {gap.mean():+.4f} ({low:+.4f}..{high:+.4f}) | {ndcg:.3f} |"
                )


if __name__ == "__main__":
    main()
