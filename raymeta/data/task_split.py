"""A task folder as one run sees it: its catalogue, and its training, validation and test users.

Everything that is counted (the catalogue, its filter) comes from the training users only.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.config.data import DataConfig
from raymeta.data.catalogue import Catalogue, catalogue_from_users
from raymeta.data.events import SupportView, reaches
from raymeta.data.features import EncodedFeatures, FeatureVocab
from raymeta.data.impressions import FeedbackTypes
from raymeta.data.intent import IntentRows, categories_of
from raymeta.data.places import known_places, localise_places
from raymeta.data.schema import FeatureSchema, load_feature_schema
from raymeta.data.splits import UserSplit, split_users
from raymeta.data.task_dataset import TaskDataset, UserTasks
from raymeta.errors import DataError, LeakageError
from raymeta.seeding import hash_fraction

Part = Literal["train", "validation", "test", "locked"]
IMPRESSION = "impression"
PARTS: tuple[Part, ...] = get_args(Part)

_NOBODY: NDArray[np.str_] = np.empty(0, np.str_)


@dataclass(frozen=True)
class TaskSplit:
    """The users of one run, histories in the index space of `catalogue`.

    Attributes:
        positive_types: indices of the event types that make an item relevant.
        view: what adapting sees of a history.
        user_vocab: how user features are read, counted on training users; None if they are not.
        cold: items known by their features only, `[I]`; None if there are none.
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
    cold: NDArray[np.bool_] | None = None


def load_task_split(
    data_dir: str | Path, config: DataConfig, *, parts: Sequence[Part] = PARTS
) -> TaskSplit:
    """Reads `DIR/tasks` and divides it as `config` says.

    Events that neither adapt nor make an item relevant (impressions, say, where `support_events`
    leaves them out) are not read: they shape no support, and having been shown an item does not
    keep it from being recommended.

    Args:
        data_dir: what `raymeta prepare` wrote.
        config: positive and support events, units, split.
        parts: which users to read, training users always among them; the other parts are empty.
    """
    tasks = TaskDataset.open(data_dir)
    if config.max_places:
        tasks = tasks.with_places()
    positive = tasks.event_type_indices(config.positive_events)
    support = tasks.event_type_indices(config.support_events or config.positive_events)
    known = _eligible_users(tasks, config, positive)
    wanted = _divided(known, config)
    wanted = {part: ids for part, ids in wanted.items() if part in ("train", *parts)}
    read = _read_parts(tasks, wanted, config, event_types=sorted({*positive, *support}))
    train = read["train"]
    min_users = max(1, round(config.min_item_users * len(train) / len(known.user_ids)))
    schema = _read_schema(Path(data_dir))
    catalogue = catalogue_from_users(
        train,
        item_ids=tasks.item_ids,
        items=_read_table(Path(data_dir), "item"),
        kinds={name: kind.value for name, kind in schema.items.items() if kind != "ignore"},
        positive_types=positive,
        min_users=min_users,
    )
    vocab = None
    if config.user_features:
        table = _read_table(Path(data_dir), "user")
        vocab = _count_users(table, schema, train.user_ids)
        read = {part: _with_features(users, table, vocab) for part, users in read.items()}
    local = {part: catalogue.localise(users, tasks.item_ids) for part, users in read.items()}
    places: tuple[str, ...] = ()
    if config.max_places:
        places = known_places(local["train"], tasks.places, max_places=config.max_places)
        local = {p: localise_places(users, tasks.places, places) for p, users in local.items()}
    split = TaskSplit(
        catalogue=catalogue,
        event_types=tasks.event_types,
        positive_types=positive,
        view=SupportView(
            config.max_support_events,
            support,
            vocab.unknown if vocab else None,
            min_value=config.min_value,
            feedback=_feedback_types(tasks, config),
            intent=_intent_rows(local["train"], catalogue, config, positive),
            places=places,
        ),
        **local,
        dataset_sha256=str(tasks.manifest["dataset_sha256"]),
        user_vocab=vocab,
        cold=None,
    )
    return with_cold_items(split, share=config.cold_items) if config.cold_items else split


def with_cold_items(split: TaskSplit, *, share: float) -> TaskSplit:
    """The same without a training user's events on a share of the items, which stay in the
    catalogue; which items they are depends on their ids only."""
    drawn = [hash_fraction("cold items", item) < share for item in split.catalogue.item_ids]
    cold, item = np.array(drawn, bool), split.train.events.item
    return replace(split, train=split.train.keep_events((item < 0) | ~cold[item]), cold=cold)


def refuse_overlap(split: UserSplit, user_ids: NDArray[np.str_]) -> None:
    """Raises `LeakageError` if a user is in two parts."""
    parts = {name: set(getattr(split, name).tolist()) for name in PARTS}
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


@dataclass(frozen=True)
class _Eligible:
    """The users with enough units, by id: what a split needs to know of them, each `[U]`."""

    user_ids: NDArray[np.str_]
    first_ms: NDArray[np.int64]


def _eligible_users(
    tasks: TaskDataset, config: DataConfig, positive_types: tuple[int, ...]
) -> _Eligible:
    ids, first_ms = [_NOBODY], [np.empty(0, np.int64)]
    for block in tasks.blocks():
        units = _count_units(block, config, positive_types)
        eligible = units >= config.min_units
        if config.max_units is not None:
            eligible &= units <= config.max_units
        ids.append(block.user_ids[eligible])
        first = np.minimum.reduceat(block.events.timestamp_ms, block.offsets[:-1])
        first_ms.append(first[eligible])
    user_ids = np.concatenate(ids)
    by_id = np.argsort(user_ids)
    return _Eligible(user_ids[by_id], np.concatenate(first_ms)[by_id])


def _divided(known: _Eligible, config: DataConfig) -> dict[Part, NDArray[np.str_]]:
    """The ids of each part."""
    boundary = config.split.boundary
    late = None if boundary is None else known.first_ms >= _to_ms(boundary)
    rows = split_users(known.user_ids, config.split, arrives_late=late)
    refuse_overlap(rows, known.user_ids)
    return {part: known.user_ids[getattr(rows, part)] for part in PARTS}


def _read_parts(
    tasks: TaskDataset,
    wanted: Mapping[Part, NDArray[np.str_]],
    config: DataConfig,
    *,
    event_types: Sequence[int],
) -> dict[Part, UserTasks]:
    """The histories of each part; with a time split, nothing after it for those before it."""
    ids = np.concatenate(list(wanted.values()))
    users = tasks.read(_keeper(ids, event_types, min_value=config.min_value))
    read = {
        part: users.take(np.searchsorted(users.user_ids, wanted.get(part, _NOBODY)))
        for part in PARTS
    }
    if config.split.boundary is not None:
        boundary_ms = _to_ms(config.split.boundary)
        for part in ("train", "validation"):
            before = read[part].events.timestamp_ms < boundary_ms
            read[part] = read[part].keep_events(before)
    return read


def _keeper(
    user_ids: NDArray[np.str_], event_types: Sequence[int], *, min_value: float | None
) -> Callable[[UserTasks], UserTasks]:
    def keep(block: UserTasks) -> UserTasks:
        found = block.take(np.flatnonzero(np.isin(block.user_ids, user_ids)))
        counts = np.isin(found.events.event_type, event_types)
        return found.keep_events(counts & reaches(found.events.value, min_value))

    return keep


def _feedback_types(tasks: TaskDataset, config: DataConfig) -> FeedbackTypes | None:
    if config.feedback is None:
        return None
    names = (IMPRESSION, config.feedback.click, config.feedback.conversion)
    return FeedbackTypes(*tasks.event_type_indices(names))


def _intent_rows(
    train: UserTasks, catalogue: Catalogue, config: DataConfig, positive_types: tuple[int, ...]
) -> IntentRows | None:
    """How rows of moments are made; the categories are those of most training users."""
    asked = config.intent
    if asked is None:
        return None
    if asked.category_column not in catalogue.items.column_names:
        raise DataError(
            f"The items have no column {asked.category_column!r} (data.intent.category_column).",
            remedy=f"Name one of {', '.join(catalogue.items.column_names)}.",
        )
    column = catalogue.items[asked.category_column].cast(pa.string())
    names = sorted(set(column.drop_null().to_pylist()))
    category = categories_of(catalogue.items, asked.category_column, names)
    events = train.events
    counts = np.isin(events.event_type, positive_types) & (events.item >= 0)
    bought = category[events.item[counts]]
    pairs = np.unique(train.user_of_event()[counts] * (len(names) + 1) + bought + 1)
    num_users = np.bincount(pairs % (len(names) + 1), minlength=len(names) + 1)[1:]
    most = np.argsort(-num_users, kind="stable")[: asked.num_categories]
    chosen = tuple(names[place] for place in most if num_users[place])
    return IntentRows(
        asked.horizon_days,
        asked.max_moments,
        asked.category_column,
        chosen,
        categories_of(catalogue.items, asked.category_column, chosen),
    )


def _count_units(
    users: UserTasks, config: DataConfig, positive_types: tuple[int, ...]
) -> NDArray[np.int64]:
    """Visits, distinct positive items, or impressions, of each user `[U]`."""
    events = users.events
    if config.unit == "impressions":
        shown = np.isin(events.event_type, positive_types)
        return np.bincount(users.user_of_event()[shown], minlength=len(users))
    if config.unit == "visits":
        return np.maximum.reduceat(events.visit, users.offsets[:-1]) + 1
    positive = np.isin(events.event_type, positive_types)
    positive &= reaches(events.value, config.min_value)
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
