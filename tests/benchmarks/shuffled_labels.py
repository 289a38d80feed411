"""Does adapting still gain where supports and what came later belong to different people?

    python tests/benchmarks/shuffled_labels.py ARTIFACT DATA

Each test user's support is judged by the later items of another user. What a support says of its
own user says nothing of the other, so that any gain over the unadapted model would be a leak, or
popularity that adapting learned. Prints, by support size, nDCG@10 adapted less unadapted with its
95% interval, of the users' own later items and of the others'.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from raymeta.artifact import load_artifact
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.adapted import AdaptedScorer, UnadaptedScorer
from raymeta.evaluation.protocol import Tasks, cut_tasks, score_tasks


def shuffled(tasks: Tasks, rng: np.random.Generator) -> Tasks:
    """The tasks with each query of another user, less what the support holds."""
    order = rng.permutation(len(tasks))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # one cycle: nobody has its own
    queries = [
        np.setdiff1d(tasks.queries[row], support.item)
        for row, support in zip(other, tasks.supports, strict=True)
    ]
    kept = [row for row, query in enumerate(queries) if len(query)]
    return replace(
        tasks,
        user_rows=tasks.user_rows[kept],
        supports=[tasks.supports[row] for row in kept],
        queries=[queries[row] for row in kept],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    artifact = load_artifact(options.artifact)
    config = artifact.experiment.data
    split = load_task_split(options.data, config)
    scorers = [
        kind(artifact.algorithm, artifact.meta_params, view=artifact.view)
        for kind in (AdaptedScorer, UnadaptedScorer)
    ]
    rng = np.random.default_rng(0)
    for size in (size for size in config.support_sizes if size > 0):
        (own,) = cut_tasks(
            split.test, [size], unit=config.unit, positive_types=split.positive_types
        )
        cells = []
        for tasks in (own, shuffled(own, rng)):
            ours, anybody = (
                score_tasks(scorer, [tasks], num_items=len(split.catalogue)).users["ndcg_at_10"]
                for scorer in scorers
            )
            gain = ours - anybody
            cells.append(f"{gain.mean():+.4f} +-{1.96 * gain.std() / len(gain) ** 0.5:.4f}")
        print(f"{size:3d} {config.unit}: own {cells[0]}   another's {cells[1]}")


if __name__ == "__main__":
    main()
