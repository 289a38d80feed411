"""What training hands to serving: a folder of weights, catalogue and settings; nothing runs.

`manifest.json` is written last and holds the sha256 of every other file; loading checks each and
executes nothing (safetensors, Parquet and JSON only).
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.config.build import restore_algorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.data.task_split import TaskSplit, users_digest
from raymeta.errors import ArtifactError, ConfigError
from raymeta.types import Params

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
META_PARAMS = "meta_params.safetensors"
TABLES = "tables.safetensors"
ITEMS = "vocab/items.parquet"
_PACKAGES = ("raymeta", "torch", "ray", "numpy")


@dataclass(frozen=True)
class Artifact:
    """A trained recommender, ready to adapt.

    Attributes:
        model_version: the first 16 hex digits of the manifest's sha256; it names the contents.
        view: which events adapting sees.
        train_user_hashes: short hashes of the training users, for leakage checks.
    """

    path: Path
    model_version: str
    manifest: Mapping[str, Any]
    experiment: ExperimentConfig
    event_types: tuple[str, ...]
    view: SupportView
    catalogue: Catalogue
    algorithm: MetaAlgorithm
    meta_params: Params
    train_user_hashes: Sequence[str]


def save_artifact(
    path: Path,
    *,
    experiment: ExperimentConfig,
    split: TaskSplit,
    algorithm: MetaAlgorithm,
    meta_params: Params,
    metrics: Mapping[str, Any],
) -> Path:
    """Writes an artifact beside `path`, then moves it there whole; an older one is replaced."""
    building = path.with_name(f".{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    (building / "vocab").mkdir(parents=True)
    save_file({n: t.contiguous() for n, t in meta_params.items()}, building / META_PARAMS)
    save_file({n: t.contiguous() for n, t in algorithm.tables().items()}, building / TABLES)
    pq.write_table(split.catalogue.items, building / ITEMS)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.model_dump(mode="json"),
        "event_types": list(split.event_types),
        "view": {
            "max_events": split.view.max_events,
            "event_types": list(split.view.event_types),
        },
        "item_kinds": split.catalogue.kinds,
        "dataset_sha256": split.dataset_sha256,
        "train_users": users_digest(split.train.user_ids),
        "metrics": dict(metrics),
        "packages": {name: _version(name) for name in _PACKAGES},
        "files": {n: _sha256(building / n) for n in (META_PARAMS, TABLES, ITEMS)},
    }
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    building.rename(path)
    return path


def load_artifact(path: str | Path) -> Artifact:
    """Reads and checks an artifact.

    Raises:
        ArtifactError: a file is missing, was altered or cut short, or has another schema version.
    """
    path = Path(path)
    text, manifest = _read_manifest(path)
    for name, expected in manifest["files"].items():
        if not (path / name).is_file():
            raise ArtifactError(
                f"Artifact {path} lacks {name}.", remedy="Copy the whole folder again."
            )
        found = _sha256(path / name)
        if found != expected:
            raise ArtifactError(
                f"{path / name} was altered or cut short: its sha256 is {found[:12]}..., "
                f"the manifest says {expected[:12]}...",
                remedy="Copy the artifact again, or train anew.",
            )
    try:
        experiment = ExperimentConfig.parse(manifest["experiment"], source=str(path / MANIFEST))
    except ConfigError as error:
        raise ArtifactError(
            f"Artifact {path} holds settings that this release does not know: {error.message}",
            remedy="Serve it with the release that trained it, or train anew.",
        ) from None
    view = manifest["view"]
    return Artifact(
        path=path,
        model_version=hashlib.sha256(text.encode()).hexdigest()[:16],
        manifest=manifest,
        experiment=experiment,
        event_types=tuple(manifest["event_types"]),
        view=SupportView(view["max_events"], tuple(view["event_types"])),
        catalogue=Catalogue(pq.read_table(path / ITEMS), manifest["item_kinds"]),
        algorithm=restore_algorithm(experiment, load_file(path / TABLES)),
        meta_params=load_file(path / META_PARAMS),
        train_user_hashes=manifest["train_users"],
    )


def _read_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} holds no {MANIFEST}: it is not an artifact, or was not finished.",
            remedy="Give the artifact folder that `raymeta train` named at its end.",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path / MANIFEST} is not JSON: {error}", remedy="Copy the artifact again."
        ) from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"Artifact {path} has schema version {version!r}; this release reads {SCHEMA_VERSION}.",
            remedy="Serve it with the release that trained it, or train anew.",
        )
    return text, manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"
