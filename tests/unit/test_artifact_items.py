"""Items that training never saw, and users with features, by way of a stored artifact."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.algorithms import AnilConfig, MamlConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig, PreferenceMlpConfig
from raymeta.data.events import History, support_from_events
from raymeta.errors import ArtifactError, SchemaError
from raymeta.train.run import train_in_process
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.features import GROUPS, PER_GROUP, item_features, write_shop_with_features
from tests.helpers.shops import SHOP


def factorization(folder: Path) -> Artifact:
    experiment = ExperimentConfig(
        name="vectors",
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=3.0, num_inner_steps=1),
        training=TrainingConfig(max_outer_steps=0),
    )
    data = write_shop_with_features(folder / "data")
    train_in_process(experiment, data, out=folder / "artifact")
    return load_artifact(folder / "artifact")


def preference_mlp(folder: Path) -> Artifact:
    experiment = ExperimentConfig(
        name="features",
        data=SHOP.model_copy(update={"user_features": True}),
        model=PreferenceMlpConfig(embedding_dim=4, hidden_dim=16, item_ids=True),
        algorithm=MamlConfig(inner_lr=0.3, num_inner_steps=2),
        training=TrainingConfig(
            tasks_per_batch=32, max_outer_steps=60, outer_lr=0.02, validate_every=20
        ),
    )
    data = write_shop_with_features(folder / "data")
    train_in_process(experiment, data, out=folder / "artifact")
    return load_artifact(folder / "artifact")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return factorization(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return preference_mlp(tmp_path_factory.mktemp("features"))


@pytest.fixture(params=["vectors", "features"])
def artifact(request: pytest.FixtureRequest) -> Artifact:
    made: Artifact = request.getfixturevalue(request.param)
    return made


def new_items() -> pa.Table:
    """An item for each group, of the group's wing."""
    return pa.Table.from_pylist(
        [{"item_id": f"new{group}", **item_features(group, group)} for group in range(GROUPS)]
    )


def scores(artifact: Artifact, histories: list[History]) -> torch.Tensor:
    support = support_from_events(histories, artifact.view)
    return artifact.algorithm.score(
        artifact.meta_params, artifact.algorithm.adapt(artifact.meta_params, support)
    )


def history(items: list[int]) -> History:
    count = len(items)
    days = np.arange(count, dtype=np.int64) * 86_400_000
    zeros = np.zeros(count, np.int64)
    return History(np.array(items, np.int64), zeros, days, np.ones(count, np.float32), zeros)


GROUP_USERS = [history([PER_GROUP * group, PER_GROUP * group + 1]) for group in range(GROUPS)]


def test_new_items_are_recommended_to_those_who_buy_in_their_wing(artifact: Artifact) -> None:
    wider = artifact.with_items(new_items())
    found = scores(wider, GROUP_USERS)
    num_known = len(artifact.catalogue)
    # what is known keeps its place; a softmax over the catalogue has a few more in it
    torch.testing.assert_close(
        found[:, :num_known], scores(artifact, GROUP_USERS), rtol=0.01, atol=0.01
    )
    # of the new items each user is shown its own group's first
    assert found[:, num_known:].argmax(1).tolist() == list(range(GROUPS))
    # and what is done with a new item moves the user towards its wing, as any other event does
    after = scores(wider, [history([num_known + group]) for group in range(GROUPS)])
    moved = (after - scores(wider, [History.empty()]))[:, :num_known]
    by_group = moved.unflatten(1, (GROUPS, PER_GROUP)).mean(2)
    assert by_group.argmax(1).tolist() == list(range(GROUPS))


def test_the_catalogue_follows(artifact: Artifact) -> None:
    wider = artifact.with_items(new_items())
    known = artifact.catalogue.item_ids
    assert wider.catalogue.item_ids == (*known, "new0", "new1", "new2", "new3")
    assert wider.catalogue.items["wing"].to_pylist()[-1] == "w3"
    assert wider.model_version == artifact.model_version
    twice = wider.with_items(pa.table({**new_items().to_pydict(), "item_id": list("abcd")}))
    assert len(twice.catalogue) == len(known) + 2 * GROUPS
    found = scores(twice, GROUP_USERS)[:, len(known) :]
    torch.testing.assert_close(found[:, :GROUPS], found[:, GROUPS:])  # the same features


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "a", "b", "c"], "'a' is in the catalogue already, or is given twice"),
        (["i000", "a", "b", "c"], "'i000' is in the catalogue"),
        (["a", None, "b", "c"], "has the id None"),
    ],
)
def test_ids_of_new_items_are_checked(
    artifact: Artifact, ids: list[str | None], message: str
) -> None:
    items = new_items().set_column(0, "item_id", pa.array(ids, pa.string()))
    with pytest.raises(SchemaError, match=message):
        artifact.with_items(items)
    with pytest.raises(SchemaError, match="lacks the column 'wing'"):
        artifact.with_items(new_items().drop_columns(["wing"]))


def test_vectors_of_an_items_features_are_those_of_its_wing(vectors: Artifact) -> None:
    artifact = vectors
    encoded = artifact.encode_items(artifact.catalogue.items)
    tables = artifact.algorithm.tables()
    assert encoded.vectors.shape == tables["item_vectors"].shape
    assert encoded.prior.shape == tables["item_prior"].shape
    own = tables["item_vectors"].unflatten(0, (GROUPS, PER_GROUP)).mean(1)
    by_wing = encoded.vectors.unflatten(0, (GROUPS, PER_GROUP)) @ own.T
    assert by_wing.argmax(2).tolist() == [[group] * PER_GROUP for group in range(GROUPS)]
    # with the vectors alone a user's list over new items is that of `with_items`
    found = scores(artifact.with_items(new_items()), GROUP_USERS)[:, -GROUPS:]
    encoded = artifact.encode_items(new_items())
    context = artifact.algorithm.adapt(
        artifact.meta_params, support_from_events(GROUP_USERS, artifact.view)
    )["context"]
    assert (context @ encoded.vectors.T + encoded.prior).argmax(1).tolist() == (
        found.argmax(1).tolist()
    )


def test_users_features_count_before_the_first_event(features: Artifact) -> None:
    artifact = features
    assert artifact.user_vocab is not None
    towns = artifact.user_vocab.table([{"town": f"t{group}"} for group in range(GROUPS)])
    encoded = artifact.user_vocab.encode(towns)
    strangers = [History.empty(encoded[group]) for group in range(GROUPS)]
    by_group = scores(artifact, strangers).unflatten(1, (GROUPS, PER_GROUP)).mean(2)
    assert by_group.argmax(1).tolist() == list(range(GROUPS))
    # one of whom nothing is known has the unknown town
    nobody = scores(artifact, [History.empty(), History.empty(artifact.user_vocab.unknown)])
    torch.testing.assert_close(nobody[0], nobody[1])
    with pytest.raises(ArtifactError, match="no item vectors"):
        artifact.encode_items(new_items())


def test_an_artifact_without_item_features_says_so(tmp_path: Path) -> None:
    artifact = load_artifact(tiny_artifact(tmp_path / "artifact"))
    assert artifact.item_encoder is None
    with pytest.raises(ArtifactError, match="had no features"):
        artifact.with_items(pa.table({"item_id": ["a"]}))


@pytest.mark.parametrize(
    "name",
    ["vocab/item_features.parquet", "vocab/user_features.parquet", "item_encoder.safetensors"],
)
def test_what_reads_features_is_checked_when_loading(
    features: Artifact, tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree(features.path, tmp_path / "artifact")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_artifact(copy)
