"""A run that stops and goes on ends where an undisturbed one ends; artifacts are checked."""

import json
from pathlib import Path

import pytest
import torch

from raymeta.artifact import load_artifact
from raymeta.cli.main import run
from raymeta.config.algorithms import AnilConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.errors import ArtifactError, ConfigError, ResourceError
from raymeta.train.checkpoint import FolderCheckpoints
from raymeta.train.run import train_in_process
from raymeta.train.run_folder import claim_folder, exclusive
from raymeta.train.trainer import _Tail
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.shops import SHOP, write_grouped_shop


class StopHereError(Exception):
    """What a test ends a run with."""


class InterruptAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def report(self, step: int, metrics: dict[str, float]) -> None:
        if step == self.step:
            raise StopHereError


def test_an_interrupted_run_ends_at_the_same_numbers(tmp_path: Path) -> None:
    data = write_grouped_shop(tmp_path / "shop")
    experiment = ExperimentConfig(
        name="resume",
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=1.0),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=8, validate_every=2),
    )
    whole = train_in_process(experiment, data, out=tmp_path / "whole")
    store = FolderCheckpoints(tmp_path / "checkpoints")
    with pytest.raises(StopHereError):
        train_in_process(experiment, data, checkpoints=store, reporter=InterruptAt(4))
    resumed = train_in_process(experiment, data, checkpoints=store, out=tmp_path / "resumed")
    assert resumed.curve == whole.curve
    expected = load_artifact(tmp_path / "whole").meta_params
    found = load_artifact(tmp_path / "resumed").meta_params
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_what_a_reporter_raises_reaches_the_caller(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 3, "metrics": {}}\n')  # of before: not reported again

    def followed() -> None:
        with _Tail(metrics, InterruptAt(3)), metrics.open("a") as file:
            file.write('{"step": 2, "metrics": {"score": 0.5}}\n{"step": 3, "metr')
            file.flush()
            file.write('ics": {}}\n')

    with pytest.raises(StopHereError):
        followed()


def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    experiment = ExperimentConfig(name="shop")
    claim_folder(tmp_path / "run", experiment)
    claim_folder(tmp_path / "run", experiment)
    other = experiment.model_copy(update={"seed": 1})
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        claim_folder(tmp_path / "run", other)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        claim_folder(tmp_path / "file", experiment)
    lock = tmp_path / "run" / ".lock"
    with exclusive(lock), pytest.raises(ResourceError, match="Another process is training into"):  # noqa: SIM117
        with exclusive(lock, wait_s=0.3):
            pass
    with exclusive(lock):
        pass


def test_adapting_finds_the_group_of_a_new_user(tmp_path: Path) -> None:
    data = write_grouped_shop(tmp_path / "shop")
    experiment = ExperimentConfig(
        name="groups",
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=3.0),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=20, validate_every=10),
    )
    curve = train_in_process(experiment, data).curve
    assert curve[0] < 0.5  # nothing is known: at best a quarter of the items fit
    assert curve[1] > curve[0] + 0.3  # two items tell the group; which of its items is chance


@pytest.mark.parametrize("name", ["tables.safetensors", "vocab/items.parquet"])
def test_an_artifact_that_was_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    path = tiny_artifact(tmp_path / "artifact")
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-7])
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_artifact(path)
    (path / name).unlink()
    with pytest.raises(ArtifactError, match=f"lacks {name}"):
        load_artifact(path)


@pytest.mark.parametrize("name", ["meta_params.safetensors", "vocab/items.parquet"])
def test_an_artifact_that_was_edited_is_refused(tmp_path: Path, name: str) -> None:
    path = tiny_artifact(tmp_path / "artifact")
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_artifact(path)


def test_an_artifact_whose_manifest_was_edited_is_refused(tmp_path: Path) -> None:
    path = tiny_artifact(tmp_path / "artifact")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest))
    load_artifact(path)  # laid out anew, it says the same
    manifest["view"]["max_events"] += 1
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest.json was altered or cut short"):
        load_artifact(path)


def test_training_on_a_folder_without_tasks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "shop.yaml"
    config.write_text("name: shop\n")
    assert run(["train", str(config), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no manifest.json: it is not a task folder" in capsys.readouterr().err
    assert run(["train", str(config)]) == 2
    assert "names no data." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        load_artifact(tmp_path)
