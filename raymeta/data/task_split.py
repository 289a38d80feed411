"""A task folder as one run sees it: its catalogue, and its training, validation and test users.

Everything that is counted (the catalogue, its filter) comes from the training users only.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.config.experiment import DataConfig
from raymeta.data.catalogue import Catalogue, catalogue_from_users
from raymeta.data.events import SupportView
from raymeta.data.features import EncodedFeatures, FeatureVocab
from raymeta.data.schema import FeatureSchema, load_feature_schema
from raymeta.data.splits import UserSplit, split_users
from raymeta.data.task_dataset import TaskDataset, UserTasks
from raymeta.errors import DataError, LeakageError


@dataclass(frozen=True)
class TaskSplit:
    """The users of one run, histories in the index space of `catalogue`.

    Attributes:
        positive_types: indices of the event types that make an item relevant.
        view: what adapting sees of a history.
        user_vocab: how user features are read, counted on training users; None if they are not.
    """

    catalogue: Catalogue
    event_types: tuple[str, ...]
    positive_types: tuple[int, ...]
    view: SupportView
    train: UserTasks
    validation: UserTasks
    test: UserTasks
    locked: UserTasks
    dataset_sha256: str
    user_vocab: FeatureVocab | None = None


def load_task_split(data_dir: str | Path, config: DataConfig) -> TaskSplit:
    """Reads `DIR/tasks` and divides it as `config` says."""
    tasks = TaskDataset.open(data_dir)
    positive = tasks.event_type_indices(config.positive_events)
    support = tasks.event_type_indices(config.support_events or config.positive_events)
    users, boundary_ms = tasks.users, None
    arrives_late = None
    if config.split.boundary is not None:
        boundary_ms = _to_ms(config.split.boundary)
        first_ms = np.minimum.reduceat(users.events.timestamp_ms, users.offsets[:-1])
        arrives_late = first_ms >= boundary_ms
    units = _count_units(users, config, positive)
    eligible = np.flatnonzero(units >= config.min_units)
    users = users.take(eligible)
    split = split_users(
        users.user_ids,
        config.split,
        arrives_late=None if arrives_late is None else arrives_late[eligible],
    )
    refuse_overlap(split, users.user_ids)
    train = users.take(split.train)
    validation = users.take(split.validation)
    if boundary_ms is not None:
        train = train.keep_events(train.events.timestamp_ms < boundary_ms)
        validation = validation.keep_events(validation.events.timestamp_ms < boundary_ms)
    min_users = max(1, round(config.min_item_users * len(train) / len(users)))
    schema = _read_schema(Path(data_dir))
    catalogue = catalogue_from_users(
        train,
        item_ids=tasks.item_ids,
        items=_read_table(Path(data_dir), "item"),
        kinds={name: kind.value for name, kind in schema.items.items() if kind != "ignore"},
        positive_types=positive,
        min_users=min_users,
    )
    parts = {
        "train": train,
        "validation": validation,
        "test": users.take(split.test),
        "locked": users.take(split.locked),
    }
    vocab = None
    if config.user_features:
        table = _read_table(Path(data_dir), "user")
        vocab = _count_users(table, schema, train.user_ids)
        parts = {name: _with_features(part, table, vocab) for name, part in parts.items()}
    return TaskSplit(
        catalogue=catalogue,
        event_types=tasks.event_types,
        positive_types=positive,
        view=SupportView(config.max_support_events, support, vocab.unknown if vocab else None),
        **{name: catalogue.localise(part, tasks.item_ids) for name, part in parts.items()},
        dataset_sha256=str(tasks.manifest["dataset_sha256"]),
        user_vocab=vocab,
    )


def refuse_overlap(split: UserSplit, user_ids: NDArray[np.str_]) -> None:
    """Raises `LeakageError` if a user is in two parts."""
    parts = {
        name: set(getattr(split, name).tolist())
        for name in ("train", "validation", "test", "locked")
    }
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = parts[one] & parts[other]
            if both:
                raise LeakageError(
                    f"User {user_ids[min(both)]!r} is both a {one} and a {other} user.",
                    remedy="Split by user; do not edit the parts by hand.",
                )


def users_digest(user_ids: NDArray[np.str_]) -> list[str]:
    """Short hashes of user ids: an artifact records whom it was trained on without naming them."""
    return sorted(hashlib.sha256(str(u).encode()).hexdigest()[:16] for u in user_ids)


def _count_units(
    users: UserTasks, config: DataConfig, positive_types: tuple[int, ...]
) -> NDArray[np.int64]:
    """Visits, or distinct positive items, of each user `[U]`."""
    events = users.events
    if config.unit == "visits":
        if len(events) == 0:
            return np.zeros(len(users), np.int64)
        return np.maximum.reduceat(events.visit, users.offsets[:-1]) + 1
    positive = np.isin(events.event_type, positive_types)
    width = int(events.item.max(initial=0)) + 1
    pairs = np.unique(users.user_of_event()[positive] * width + events.item[positive])
    return np.bincount(pairs // width, minlength=len(users))


def _read_table(data_dir: Path, of: str) -> pa.Table:
    """`items.parquet` or `users.parquet`; a table without rows where there is none."""
    path = data_dir / f"{of}s.parquet"
    if not path.is_file():
        return pa.table({f"{of}_id": pa.array([], pa.string())})
    return pq.read_table(path)


def _read_schema(data_dir: Path) -> FeatureSchema:
    """The kinds of feature columns; none where the data set names none."""
    named = (data_dir / "schema.yaml").is_file()
    return load_feature_schema(data_dir) if named else FeatureSchema()


def _count_users(
    table: pa.Table, schema: FeatureSchema, train_ids: NDArray[np.str_]
) -> FeatureVocab:
    """The vocabulary of user features, from the rows of training users."""
    training = pc.is_in(table["user_id"], value_set=pa.array(train_ids.tolist(), pa.string()))
    vocab = FeatureVocab.count(table.filter(training), schema.users)
    if not vocab.fields:
        raise DataError(
            "data.user_features is set, but the data set knows nothing of its training users.",
            remedy="Give a users table when preparing, or set data.user_features: false.",
        )
    return vocab


def _with_features(users: UserTasks, table: pa.Table, vocab: FeatureVocab) -> UserTasks:
    """The users with their rows of `table`, encoded; one without a row has unknown features."""
    known = vocab.encode(table)
    unknown = vocab.unknown
    row = pc.index_in(pa.array(users.user_ids.tolist(), pa.string()), value_set=table["user_id"])
    row = row.fill_null(len(known)).to_numpy(zero_copy_only=False).astype(np.int64)
    features = EncodedFeatures(
        np.vstack([known.index, unknown.index])[row],
        np.vstack([known.weight, unknown.weight])[row],
        known.unseen,
    )
    return replace(users, features=features)


def _to_ms(date: str) -> int:
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        raise DataError(
            f"data.split.boundary {date!r} is not an ISO-8601 date.",
            remedy="Write for example 2011-06-01.",
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
