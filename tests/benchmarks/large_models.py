"""A `sequence` model of 1, 10 and 100 million parameters: what pretraining and meta-training cost.

    python tests/benchmarks/large_models.py EXPERIMENT DATA [--size 1M]

EXPERIMENT is a `sequence` of any size, DATA what `raymeta prepare` wrote for it. Prints one JSON
line a size, each measured in a process of its own: parameters in the body and in tables of items,
users a second of pretraining steps and of outer steps, peak resident memory of the whole process,
bytes of one user's state, and the share of the tables' rows that training touched.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from raymeta.config.base import load_settings, merge
from raymeta.config.build import build_algorithm, build_base, user_state_bytes
from raymeta.config.build_sequence import build_next_items, pretrained_tables
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.models import SequenceConfig
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.scenarios.table import open_scenario
from raymeta.models.factorization import Factorization
from raymeta.seeding import torch_generator
from raymeta.train.batches import EpisodeSampler
from raymeta.train.outer import OuterOptimizer, alone, mean_over_tasks
from raymeta.train.pretraining_loss import pretraining_loss
from raymeta.train.pretraining_optimizer import PretrainingOptimizer
from raymeta.train.pretraining_tasks import PretrainingTasks

SIZES: dict[str, dict[str, int]] = {
    "1M": {"item_dim": 64, "dim": 64, "num_layers": 2, "num_heads": 2, "num_pair_rows": 6144},
    "10M": {"item_dim": 192, "dim": 192, "num_layers": 6, "num_heads": 6, "num_pair_rows": 30720},
    "100M": {"item_dim": 512, "dim": 512, "num_layers": 8, "num_heads": 8, "num_pair_rows": 147456},
}
SAMPLED = {"loss": "softmax", "beside_base": False, "num_sampled": 512, "recompute": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), help="all, a process each, if not given")
    parser.add_argument("--pretraining-steps", type=int, default=6)
    parser.add_argument("--outer-steps", type=int, default=2)
    parser.add_argument("--users", type=int, default=16, help="users a step of either kind")
    arguments = parser.parse_args()
    if arguments.size is None:
        for size in SIZES:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--size", size], check=True)
        return
    print(json.dumps(measured(arguments)), flush=True)


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = sized(load_settings(ExperimentConfig, arguments.experiment), arguments)
    config = experiment.model
    assert isinstance(config, SequenceConfig)
    split = load_task_split(arguments.data, experiment.data, parts=("train",))
    base = build_base(experiment, split)
    assert isinstance(base.model, Factorization)
    network = build_next_items(config, split, base.model.start, seed=0)
    optimizer = PretrainingOptimizer(network, config.pretraining, all_reduce=alone)
    tasks = PretrainingTasks(
        split.train,
        experiment.data,
        split=split,
        base=None,
        users_per_batch=arguments.users,
        seed=0,
    )
    prior = base.model.tables()["item_prior"]
    torch.manual_seed(0)
    started = time.perf_counter()
    for step in range(arguments.pretraining_steps):
        loss = pretraining_loss(network.train(), tasks.batch(step), prior, config.pretraining)
        loss.backward()
        optimizer.step(float(loss.detach()))
    pretraining_s = time.perf_counter() - started
    tables = pretrained_tables(network.eval(), torch.tensor([-2.0, 0.0]))
    algorithm = build_algorithm(experiment, split, pretrained=tables)
    params = algorithm.init(torch_generator(0, "init"))
    outer = OuterOptimizer(params, experiment.training)
    sampler = EpisodeSampler(
        split.train,
        open_scenario(experiment, split),
        support_sizes=experiment.data.support_sizes,
        tasks_per_batch=arguments.users,
        seed=0,
    )
    started = time.perf_counter()
    for step in range(arguments.outer_steps):
        gradients, _ = mean_over_tasks(algorithm.meta_gradient(params, sampler.batch(step)), alone)
        outer.step(gradients)
    outer_s = time.perf_counter() - started
    touched = sum(int(rows.sum()) for rows in optimizer.touched.values())
    rows = sum(len(rows) for rows in optimizer.touched.values())
    in_body = sum(p.numel() for p in network.body.parameters())
    return {
        "size": arguments.size,
        "parameters_in_body": in_body,
        "parameters_in_tables": sum(p.numel() for p in network.parameters()) - in_body,
        "meta_parameters": sum(p.numel() for p in params.values()),
        "pretraining_users_per_s": arguments.users * arguments.pretraining_steps / pretraining_s,
        "outer_users_per_s": arguments.users * arguments.outer_steps / outer_s,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes_per_user": user_state_bytes(experiment),
        "table_rows": rows,
        "share_of_rows_touched": touched / rows,
        "steps": [arguments.pretraining_steps, arguments.outer_steps],
        "threads": torch.get_num_threads(),
    }


def sized(experiment: ExperimentConfig, arguments: argparse.Namespace) -> ExperimentConfig:
    changed = {**SIZES[arguments.size], "pretraining": SAMPLED}
    values = merge(experiment.model_dump(mode="json"), {"model": changed})
    return ExperimentConfig.parse(values, source=str(arguments.experiment))


if __name__ == "__main__":
    main()
