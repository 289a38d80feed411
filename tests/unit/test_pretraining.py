"""Pretraining: what it learns, that it resumes and shards, and what an artifact carries of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from raymeta.artifact import load_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.build import build_algorithm, user_state_bytes
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig, SequenceConfig
from raymeta.config.pretraining import PretrainingConfig
from raymeta.data.events import History, support_from_events
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.errors import ConfigError
from raymeta.models.next_items import hashed_pairs
from raymeta.train.checkpoint import FolderCheckpoints
from raymeta.train.loop import Worker
from raymeta.train.pretrain import pretrain
from raymeta.train.pretraining_tasks import PretrainingTasks
from raymeta.train.run import NoCheckpoints, train_in_process
from raymeta.types import Params
from tests.helpers.shops import SHOP, describe_items, write_grouped_shop

STEPS = {"users_per_batch": 16, "validate_every": 10, "learning_rate": 0.01, "dropout": 0.1}


def experiment(*, steps: int = 20, **pretraining: object) -> ExperimentConfig:
    return ExperimentConfig(
        name="sequence",
        data=SHOP,
        model=SequenceConfig(
            base=FactorizationConfig(dim=4, regularisation=3.0),
            item_dim=8,
            dim=8,
            num_layers=1,
            num_pair_rows=64,
            pretraining=PretrainingConfig(max_steps=steps, **{**STEPS, **pretraining}),
        ),
        algorithm=CaviaConfig(inner_lr=0.5, num_inner_steps=1),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=2, validate_every=2),
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grouped_shop(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture(scope="module")
def split(shop: Path) -> TaskSplit:
    return load_task_split(shop, SHOP, parts=("train", "validation"))


def equal(found: Params, expected: Params) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=0.0, msg=name)


ALONE = {"beside_base": False}
WAYS = {
    "beside the base": {"loss": "softmax"},
    "list": {"loss": "ndcg", **ALONE},
    "sampled": {"num_sampled": 16, **ALONE},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_ends_at_the_numbers_of_one_that_was_not_disturbed(
    way: str, split: TaskSplit, tmp_path: Path
) -> None:
    options = WAYS[way]
    whole = pretrain(
        experiment(steps=20, **options), split, checkpoints=NoCheckpoints(), worker=Worker()
    )
    checkpoints = FolderCheckpoints(tmp_path)
    for steps in (10, 20):
        halves = pretrain(
            experiment(steps=steps, **options), split, checkpoints=checkpoints, worker=Worker()
        )
    equal(halves, whole)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"params", "best", "optimizer", "position.json"}


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_what_groups_there_are_by_itself(way: str, shop: Path, tmp_path: Path) -> None:
    # without an inner step the context stays 0: the summary alone knows the user
    chosen = experiment(steps=60, learning_rate=0.03, **WAYS[way] | ALONE)
    alone = chosen.model_copy(
        update={
            "algorithm": CaviaConfig(num_inner_steps=0),
            "training": TrainingConfig(max_outer_steps=0),
        }
    )
    curve = train_in_process(alone, shop, out=tmp_path / "artifact").curve
    assert min(curve[1], curve[2]) > curve[0] + 0.15


def test_without_a_step_the_model_is_its_base(shop: Path) -> None:
    still = {"training": TrainingConfig(max_outer_steps=0)}
    fused = experiment(steps=0).model_copy(update=still)
    assert isinstance(fused.model, SequenceConfig)
    base = fused.model_copy(update={"model": fused.model.base})
    found = train_in_process(fused, shop).curve
    assert found == pytest.approx(train_in_process(base, shop).curve, abs=1e-6)


def test_validation_users_are_not_learned_from(split: TaskSplit) -> None:
    chosen = experiment(steps=10)
    found = pretrain(chosen, split, checkpoints=NoCheckpoints(), worker=Worker())
    other = replace(split, validation=split.validation[:5])
    again = pretrain(chosen, other, checkpoints=NoCheckpoints(), worker=Worker())
    gate = "sequence.gate"
    equal(
        {n: t for n, t in again.items() if n != gate}, {n: t for n, t in found.items() if n != gate}
    )


def test_batches_hold_every_task_once_an_epoch_and_shards_are_disjoint(split: TaskSplit) -> None:
    def tasks(users: object) -> PretrainingTasks:
        return PretrainingTasks(
            users,
            SHOP,
            split=split,
            base=None,
            users_per_batch=16,
            seed=3,  # type: ignore[arg-type]
        )

    one = tasks(split.train)
    sizes = sum(len(one.batch(step).query["mask"]) for step in range(len(one)))
    assert sizes == 3 * len(split.train)  # each user has something left at each of three sizes
    shards = [tasks(split.train.shard(rank, 2)) for rank in (0, 1)]
    both = [sum(len(s.batch(step).query["mask"]) for step in range(len(s))) for s in shards]
    assert sum(both) == sizes
    equal(one.batch(1).support, tasks(split.train).batch(1).support)


def test_the_artifact_gives_what_training_had_and_new_items_a_vector(
    tmp_path: Path,
) -> None:
    shop = write_grouped_shop(tmp_path / "data")
    describe_items(shop, ["mug", "scarf", "lamp", "book"])
    chosen = experiment()
    train_in_process(chosen, shop, out=tmp_path / "artifact")
    artifact = load_artifact(tmp_path / "artifact")
    history = History(
        item=np.array([1, 2]),
        event_type=np.zeros(2, np.int64),
        timestamp_ms=np.array([0, 86_400_000]),
        value=np.ones(2, np.float32),
        visit=np.arange(2),
    )
    support = support_from_events([history, History.empty()], artifact.view)
    state = artifact.algorithm.adapt(artifact.meta_params, support)
    scores = artifact.algorithm.score(artifact.meta_params, state)
    assert sum(value[0].nbytes for value in state.values()) == user_state_bytes(chosen)
    grown = artifact.with_items(
        artifact.catalogue.items.slice(0, 1).set_column(
            artifact.catalogue.items.schema.get_field_index("item_id"), "item_id", [["new"]]
        )
    )
    same = grown.algorithm.adapt(grown.meta_params, support)
    more = grown.algorithm.score(grown.meta_params, same)
    torch.testing.assert_close(more[:, : scores.shape[1]], scores)
    assert more.shape[1] == scores.shape[1] + 1
    assert bool(more.isfinite().all())


def test_nothing_pretrained_is_an_error(split: TaskSplit) -> None:
    with pytest.raises(ConfigError, match="needs a pretrained Transformer, and none was given"):
        build_algorithm(experiment(), split)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_sampled needs loss: softmax and beside_base"):
        PretrainingConfig(num_sampled=8)
    with pytest.raises(ValidationError, match="num_heads 3 does not divide dim 64"):
        SequenceConfig(num_heads=3)


def test_pairs_of_features_are_hashed_alike_for_like_items() -> None:
    index = torch.tensor([[1, 5, 9], [1, 5, 9], [1, 6, 9]])
    pairs = hashed_pairs(index, torch.ones(3, 3), 1 << 20)
    assert pairs.shape == (3, 3)
    assert pairs[0].tolist() == pairs[1].tolist()
    assert (pairs[0] == pairs[2]).tolist() == [False, True, False]  # (0,1), (0,2), (1,2)
    assert hashed_pairs(index, torch.ones(3, 3), 0).shape == (3, 0)
