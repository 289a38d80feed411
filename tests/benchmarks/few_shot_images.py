"""5-way Omniglot on alphabets that training never saw, a row an algorithm.

    python tests/benchmarks/few_shot_images.py --algorithm ridge --shots 5 --data FOLDER

FOLDER holds the two small background sets of github.com/brendenlake/omniglot. Training: the five
alphabets of the first, each character turned four ways. Test: those alphabets of the second that
the first does not have (Greek and Latin are in both), 600 tasks with 5 query images a class, not
turned. Nothing is tuned on the test alphabets. No row is transductive: a query image is classified
by itself. Beside it: the nearest support image in pixels, on the same tasks.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from raymeta.adapters.select import state_bytes
from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.outer import meta_train
from raymeta.data.worlds.base import batches
from raymeta.data.worlds.images import FewShotImages, read_omniglot
from raymeta.inner.losses import cross_entropy
from raymeta.inner.schedules import cosine
from raymeta.models.module import ModuleModel
from raymeta.seeding import torch_generator
from raymeta.types import Params, TaskBatch

WAYS, TEST_TASKS = 5, 600
ZIPS = ("images_background_small1.zip", "images_background_small2.zip")

ROWS = {
    "maml": lambda model: presets.maml(model, inner_lr=0.2, num_inner_steps=1),
    "fomaml": lambda model: presets.fomaml(model, inner_lr=0.1, num_inner_steps=3),
    "anil": lambda model: presets.anil(model, inner_lr=0.1, num_inner_steps=5),
    "ridge": lambda model: presets.ridge(model, penalty=1.0, scale=5.0),
    "logistic": lambda model: presets.logistic(model),
    "neural_process": lambda model: presets.amortised_head(model),
    "prototypes": lambda model: presets.prototypes(model),
}


def network(width: int = 32) -> nn.Module:
    """Four strided convolutions and a linear head; group norm, since a row is judged by itself."""

    def block(channels: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        return [convolution, nn.GroupNorm(4, width), nn.ReLU()]

    layers = [*block(1), *block(width), *block(width), *block(width), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * 2 * 2, WAYS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=sorted(ROWS), required=True)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--tasks", type=int, default=8, help="tasks an outer step")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first, second = (read_omniglot(arguments.data / name) for name in ZIPS)
    unseen = sorted(set(second.groups) - set(first.groups))
    train = FewShotImages(first.rotated(), ways=WAYS, shots=arguments.shots, queries=5)
    test = FewShotImages(second.of(unseen), ways=WAYS, shots=arguments.shots, queries=5)
    torch.manual_seed(arguments.seed)
    learner = ROWS[arguments.algorithm](ModuleModel(network(), cross_entropy))
    started_s = time.monotonic()
    params = meta_train(
        learner,
        batches(train, tasks_per_batch=arguments.tasks, seed=arguments.seed),
        num_steps=arguments.steps,
        outer_lr=2e-3,
        schedule=cosine(arguments.steps, final=0.02),
        seed=arguments.seed,
    )
    train_s = round(time.monotonic() - started_s)
    parts = [test.sample(60, torch_generator(1, "test", i)) for i in range(TEST_TASKS // 60)]
    result = {
        "algorithm": arguments.algorithm,
        "ways": WAYS,
        "shots": arguments.shots,
        "accuracy": interval(torch.cat([accuracy(learner, params, p) for p in parts])),
        "nearest_pixels": interval(torch.cat([nearest(p) for p in parts])),
        "transductive": False,
        "test_alphabets": unseen,
        "steps": arguments.steps,
        "train_s": train_s,
        "state_bytes": state_bytes(params, learner.fast),
    }
    print(json.dumps(result))


def accuracy(learner: GradientBased, params: Params, batch: TaskBatch) -> Tensor:
    """Each task's share of query images that are classified right, `[T]`."""
    scores = learner.score(params, learner.adapt(params, batch.support), batch.query["x"])
    return (scores.argmax(-1) == batch.query["y"]).float().mean(1)


def nearest(batch: TaskBatch) -> Tensor:
    """The same for the class of the support image that is nearest in pixels, `[T]`."""
    distance = torch.cdist(batch.query["x"].flatten(2), batch.support["x"].flatten(2))
    found = batch.support["y"].gather(1, distance.argmin(2))
    return (found == batch.query["y"]).float().mean(1)


def interval(values: Tensor) -> str:
    """The mean in percent and the half width of its 95% interval."""
    half = 1.96 * values.std() / len(values) ** 0.5
    return f"{100 * values.mean():.1f} +- {100 * half:.1f}"


if __name__ == "__main__":
    main()
