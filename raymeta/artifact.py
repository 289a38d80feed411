"""What training hands to serving: a folder of weights, catalogue and settings; nothing runs.

`manifest.json` is written last and holds the sha256 of every other file, and of itself as canonical
JSON without that entry; loading checks each and executes nothing (safetensors, Parquet and JSON
only).
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.config.build import (
    encoded_tables,
    extend_params,
    extend_tables,
    item_weights,
    restore_algorithm,
)
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.data.features import FeatureVocab
from raymeta.data.impressions import FeedbackTypes
from raymeta.data.intent import IntentRows, categories_of
from raymeta.data.queries import item_texts
from raymeta.data.task_split import TaskSplit, users_digest
from raymeta.errors import ArtifactError, ConfigError, SchemaError
from raymeta.models.item_encoder import MIN_ITEMS, ItemEncoder
from raymeta.models.text_encoder import (
    TextEncoder,
    cache_folder,
    encode_cached,
    encoder_named,
)
from raymeta.models.text_match import TextMatcher
from raymeta.types import Params

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
META_PARAMS = "meta_params.safetensors"
TABLES = "tables.safetensors"
ITEMS = "vocab/items.parquet"
ITEM_FEATURES = "vocab/item_features.parquet"
USER_FEATURES = "vocab/user_features.parquet"
ITEM_ENCODER = "item_encoder.safetensors"
ITEM_TEXT = "item_text.safetensors"
TEXT_SCALE = 3.0
"""Length of a sentence vector beside features of length about 1 each, under one penalty."""

_OWN_DIGEST = "manifest_sha256"
_PACKAGES = ("raymeta", "torch", "ray", "numpy")


class EncodedItems(NamedTuple):
    """What items have in the space of a user's query vector: `[N, D]` and `[N]`."""

    vectors: Tensor
    prior: Tensor


@dataclass(frozen=True)
class Artifact:
    """A trained recommender, ready to adapt.

    Attributes:
        model_version: the first 16 hex digits of the manifest's sha256; it names the contents.
        view: which events adapting sees, and what stands for a user without features.
        user_vocab: how a user's features are read; None where adapting sees none.
        item_encoder: what an unseen item has, by its features; None where items came without any.
        matcher: how items answer a query by their text; None where searches are not served.
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
    user_vocab: FeatureVocab | None = None
    item_encoder: ItemEncoder | None = None
    matcher: TextMatcher | None = None

    def encode_items(self, items: pa.Table) -> EncodedItems:
        """Vectors and priors of items by their features, whether training saw them or not.

        Args:
            items: a row an item, with the columns of `catalogue.vocab`, nulls where not known.

        Raises:
            ArtifactError: the model has no item vectors, or no item had features in training.
            SchemaError: a column is missing or holds another kind of value.
        """
        rows = self._encoded(items)
        if "item_vectors" not in rows:
            raise ArtifactError(
                f"The model {self.experiment.model.name} scores items by their features and has "
                "no item vectors.",
                remedy="Use Artifact.with_items, which every model has.",
            )
        return EncodedItems(rows["item_vectors"], rows["item_prior"])

    def with_items(self, items: pa.Table) -> "Artifact":
        """The same recommender with items that training never saw after those of its catalogue.

        Everything works with them as with any other: they are ranked, filtered, and what a user
        does with them counts in `adapt`. Meta-parameters are shared with this artifact.

        Args:
            items: a row an item: `item_id`, not in the catalogue yet, and feature columns.

        Raises:
            ArtifactError: no item had features in training.
            SchemaError: an id is missing, repeated or in the catalogue; or as for `encode_items`.
        """
        added = _new_item_ids(items, self.catalogue)
        known = self.catalogue.items
        columns = [name for name in known.column_names if name in items.column_names]
        fields = pa.schema([known.schema.field(name) for name in columns])
        described_items = items.select(columns).cast(fields)
        catalogue = replace(
            self.catalogue,
            items=pa.concat_tables([known, described_items], promote_options="default"),
        )
        intent = _restored_intent(_intent_facts(self.view.intent), catalogue)
        tables = extend_tables(
            self.experiment,
            self.algorithm.tables(),
            self._encoded(items) if intent is None else _categories(intent, len(added)),
            features=self.catalogue.vocab.encode(items),
        )
        matcher, search = self.matcher, self.experiment.search
        if matcher is not None and search is not None:
            texts = item_texts(catalogue.items.slice(len(known)), search.text_columns)
            matcher = matcher.extended(texts)
        return replace(
            self,
            catalogue=catalogue,
            view=replace(self.view, intent=intent),
            matcher=matcher,
            algorithm=restore_algorithm(
                self.experiment, tables, item_vocab=catalogue.vocab, user_vocab=self.user_vocab
            ),
            meta_params=extend_params(self.experiment, self.meta_params, len(added)),
        )

    def _encoded(self, items: pa.Table) -> Params:
        if self.item_encoder is None:
            raise ArtifactError(
                "The items that this artifact was trained on had no features, so features say "
                "nothing of another item.",
                remedy="Prepare the data with an items table that has feature columns, and train.",
            )
        return self.item_encoder.encode(_encodable(self.experiment, self.catalogue.vocab, items))


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
    pq.write_table(split.catalogue.vocab.to_table(), building / ITEM_FEATURES)
    if split.user_vocab is not None:
        pq.write_table(split.user_vocab.to_table(), building / USER_FEATURES)
    encoder = _fit_encoder(experiment, split, algorithm)
    if encoder is not None:
        save_file(encoder.tensors(), building / ITEM_ENCODER)
    matcher = _fit_matcher(experiment, split)
    if matcher is not None and matcher.vectors is not None:
        save_file({"vectors": matcher.vectors.contiguous()}, building / ITEM_TEXT)
    written = sorted(p.relative_to(building).as_posix() for p in building.rglob("*.*"))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.model_dump(mode="json"),
        "scenarios": [scenario.name for scenario in experiment.scenarios],
        "event_types": list(split.event_types),
        "view": {
            "max_events": split.view.max_events,
            "min_value": split.view.min_value,
            "event_types": list(split.view.event_types),
            "feedback": split.view.feedback,
            "intent": _intent_facts(split.view.intent),
            "places": list(split.view.places),
        },
        "item_kinds": split.catalogue.kinds,
        "item_encoder": None if encoder is None else encoder.facts(),
        "text_encoder": None if matcher is None else matcher.encoder_sha256,
        "dataset_sha256": split.dataset_sha256,
        "train_users": users_digest(split.train.user_ids),
        "metrics": dict(metrics),
        "packages": {name: _version(name) for name in _PACKAGES},
        "files": {name: _sha256(building / name) for name in written},
    }
    manifest[_OWN_DIGEST] = _manifest_sha256(manifest)
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
    view, files = manifest["view"], manifest["files"]
    item_vocab = FeatureVocab.from_table(pq.read_table(path / ITEM_FEATURES))
    user_vocab = encoder = None
    if USER_FEATURES in files:
        user_vocab = FeatureVocab.from_table(pq.read_table(path / USER_FEATURES))
    if ITEM_ENCODER in files:
        encoder = ItemEncoder.restore(load_file(path / ITEM_ENCODER), manifest["item_encoder"])
    catalogue = Catalogue(pq.read_table(path / ITEMS), manifest["item_kinds"], item_vocab)
    return Artifact(
        path=path,
        model_version=hashlib.sha256(text.encode()).hexdigest()[:16],
        manifest=manifest,
        experiment=experiment,
        event_types=tuple(manifest["event_types"]),
        view=SupportView(
            view["max_events"],
            tuple(view["event_types"]),
            None if user_vocab is None else user_vocab.unknown,
            view.get("min_value"),
            FeedbackTypes(*view["feedback"]) if view.get("feedback") else None,
            _restored_intent(view.get("intent"), catalogue),
            tuple(view.get("places", ())),
        ),
        catalogue=catalogue,
        algorithm=restore_algorithm(
            experiment, load_file(path / TABLES), item_vocab=item_vocab, user_vocab=user_vocab
        ),
        meta_params=load_file(path / META_PARAMS),
        train_user_hashes=manifest["train_users"],
        user_vocab=user_vocab,
        item_encoder=encoder,
        matcher=_restored_matcher(experiment, catalogue, path, manifest),
    )


def _fit_encoder(
    experiment: ExperimentConfig, split: TaskSplit, algorithm: MetaAlgorithm
) -> ItemEncoder | None:
    """From the catalogue's features to the model's tables; None where there is nothing to fit."""
    catalogue = split.catalogue
    tables = algorithm.tables()
    encoded = encoded_tables(experiment, tables)
    if not catalogue.vocab.fields or (encoded and len(catalogue) < MIN_ITEMS):
        return None
    features = _encodable(experiment, catalogue.vocab, catalogue.items)
    return ItemEncoder.fit(features, encoded, weights=item_weights(experiment, tables))


def _encodable(
    experiment: ExperimentConfig, vocab: FeatureVocab, items: pa.Table
) -> sparse.csr_array:
    """What an item encoder reads of items: features, and after them sentence vectors if wanted."""
    features = vocab.encode(items).matrix(vocab.num_rows)
    columns = experiment.data.new_item_text
    if not columns:
        return features
    texts, encoder = item_texts(items, columns), TextEncoder()
    vectors = encode_cached(encoder, texts, cache_folder()) * TEXT_SCALE
    return sparse.csr_array(sparse.hstack([features, sparse.csr_array(vectors.numpy())]))


def _fit_matcher(experiment: ExperimentConfig, split: TaskSplit) -> TextMatcher | None:
    """What answers a query; None where the run has no searches."""
    search = experiment.search
    if search is None:
        return None
    encoder = encoder_named(search.encoder)
    return TextMatcher.of(split.catalogue.items, search.text_columns, encoder=encoder)


def _restored_matcher(
    experiment: ExperimentConfig, catalogue: Catalogue, path: Path, manifest: Mapping[str, Any]
) -> TextMatcher | None:
    """The same from an artifact, whose encoder must be the one on this machine."""
    search = experiment.search
    if search is None:
        return None
    encoder, vectors = encoder_named(search.encoder), None
    if encoder is not None:
        if encoder.sha256 != manifest["text_encoder"]:
            raise ArtifactError(
                f"Artifact {path} was trained with another sentence encoder than the one in "
                f"{search.encoder!r} here: {encoder.sha256[:12]}... is its sha256.",
                remedy="Install the encoder that it was trained with, or train anew.",
            )
        vectors = load_file(path / ITEM_TEXT)["vectors"]
    return TextMatcher(item_texts(catalogue.items, search.text_columns), vectors, encoder)


def _intent_facts(rows: IntentRows | None) -> dict[str, Any] | None:
    if rows is None:
        return None
    return {
        "horizon_days": rows.horizon_days,
        "max_moments": rows.max_moments,
        "column": rows.column,
        "categories": list(rows.categories),
    }


def _categories(rows: IntentRows, num_added: int) -> Params:
    """The categories of the last items, as a model's table has them."""
    return {"category_of_item": torch.from_numpy(rows.category_of_item[-num_added:].copy())}


def _restored_intent(facts: Mapping[str, Any] | None, catalogue: Catalogue) -> IntentRows | None:
    """What `_intent_facts` kept, over the items of a catalogue."""
    if facts is None:
        return None
    categories = tuple(facts["categories"])
    of_item = categories_of(catalogue.items, facts["column"], categories)
    return IntentRows(
        facts["horizon_days"], facts["max_moments"], facts["column"], categories, of_item
    )


def _new_item_ids(items: pa.Table, catalogue: Catalogue) -> list[str]:
    """The ids of items to add."""
    given = items["item_id"].to_pylist() if "item_id" in items.column_names else [None]
    seen, ids = set(catalogue.index_of), []
    for item_id in given:
        if not isinstance(item_id, str) or not item_id:
            raise SchemaError(
                f"An item to add has the id {item_id!r}.", remedy="Give each an item_id, a text."
            )
        if item_id in seen:
            raise SchemaError(
                f"The item {item_id!r} is in the catalogue already, or is given twice.",
                remedy="Add each item once.",
            )
        seen.add(item_id)
        ids.append(item_id)
    return ids


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
    if manifest.get(_OWN_DIGEST) != _manifest_sha256(manifest):
        raise ArtifactError(
            f"{path / MANIFEST} was altered or cut short: its contents are not those that its "
            f"{_OWN_DIGEST} was taken of.",
            remedy="Copy the artifact again, or train anew: settings are fixed by training.",
        )
    return text, manifest


def _manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Of the manifest without this digest, as JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in manifest.items() if key != _OWN_DIGEST}
    as_read = json.loads(json.dumps(rest))  # keys are text, which sorts unlike numbers
    canonical = json.dumps(as_read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"
