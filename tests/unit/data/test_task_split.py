"""What a run reads of a task folder: the users and events that count, and nothing in between."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from raymeta.config.data import DataConfig, SplitConfig
from raymeta.data.episodes import cut
from raymeta.data.events import support_from_events
from raymeta.data.prepare import prepare
from raymeta.data.schema import EventColumns, EventSchema, LogSchema
from raymeta.data.sources.files import Files
from raymeta.data.sources.synthetic import SyntheticShop
from raymeta.data.synthetic_shop import Shop
from raymeta.data.task_dataset import TaskDataset, UserTasks
from raymeta.data.task_split import PARTS, TaskSplit, load_task_split
from raymeta.errors import DataError
from tests.helpers.logs import tasks_of

CONFIG = DataConfig(
    support_events=("view", "click", "cart", "purchase"),
    min_item_users=3,
    min_units=4,
    split=SplitConfig(fold=2),
)
BY_TIME = CONFIG.model_copy(update={"split": SplitConfig(kind="time", boundary="2024-02-15")})
BOUNDARY_MS = 1_707_955_200_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 users, in row groups of seven: whatever is read, is read in blocks."""
    folder = tmp_path_factory.mktemp("shop") / "data"
    prepare(SyntheticShop(Shop(num_users=120, num_items=96, num_visits=1_200)), folder)
    for bucket in (folder / "tasks").glob("bucket-*.parquet"):
        pq.write_table(pq.read_table(bucket), bucket, row_group_size=7)
    assert len(list(TaskDataset.open(folder).blocks())) > 10
    return folder


def as_rows(users: UserTasks, split: TaskSplit) -> dict[str, list[tuple[Any, ...]]]:
    """Each user's events in plain values; an item outside the catalogue is None."""
    items = [*split.catalogue.item_ids, None]
    return {
        str(user): list(
            zip(
                (items[i] for i in history.item),
                (split.event_types[t] for t in history.event_type),
                history.timestamp_ms.tolist(),
                history.visit.tolist(),
                strict=True,
            )
        )
        for user, history in zip(users.user_ids, users, strict=True)
    }


def expected_rows(
    shop: Path, split: TaskSplit, users: list[str], *, before_ms: float = np.inf
) -> dict[str, list[tuple[Any, ...]]]:
    """The same from the files, a row at a time."""
    ids = pq.read_table(shop / "tasks" / "items.parquet")["item_id"].to_pylist()
    stored, rows = tasks_of(shop), {}
    for user in users:
        columns = (stored[user][c] for c in ("item", "event_type", "timestamp_ms", "visit"))
        rows[user] = [
            (ids[item] if ids[item] in split.catalogue.index_of else None, name, at, visit)
            for item, kind, at, visit in zip(*columns, strict=True)
            if (name := split.event_types[kind]) not in ("impression", "search") and at < before_ms
        ]
    return rows


def test_what_is_read_in_blocks_is_what_the_files_hold(shop: Path) -> None:
    split = load_task_split(shop, CONFIG)
    enough = {user for user, row in tasks_of(shop).items() if row["num_visits"] >= 4}
    found = [set(getattr(split, part).user_ids.tolist()) for part in PARTS]
    assert set().union(*found) == enough
    assert sum(map(len, found)) == len(enough)
    for part in PARTS:
        users = getattr(split, part)
        assert sorted(users.user_ids.tolist()) == users.user_ids.tolist()
        assert as_rows(users, split) == expected_rows(shop, split, users.user_ids.tolist())


def test_a_time_split_reads_nothing_of_the_future(shop: Path) -> None:
    split = load_task_split(shop, BY_TIME)
    for part, before_ms in (("train", BOUNDARY_MS), ("test", np.inf)):
        users = getattr(split, part)
        rows = expected_rows(shop, split, users.user_ids.tolist(), before_ms=before_ms)
        assert as_rows(users, split) == rows
    assert max(split.train.events.timestamp_ms) < BOUNDARY_MS
    assert min(split.test.events.timestamp_ms) >= BOUNDARY_MS


def test_the_catalogue_is_what_training_users_bought(shop: Path) -> None:
    split = load_task_split(shop, CONFIG)
    buyers: defaultdict[str, set[str]] = defaultdict(set)
    ids = pq.read_table(shop / "tasks" / "items.parquet")["item_id"].to_pylist()
    stored = tasks_of(shop)
    for user in split.train.user_ids.tolist():
        for item, kind in zip(stored[user]["item"], stored[user]["event_type"], strict=True):
            if split.event_types[kind] == "purchase":
                buyers[ids[item]].add(user)
    share = len(split.train) / sum(len(getattr(split, part)) for part in PARTS)
    least = max(1, round(3 * share))
    assert list(split.catalogue.item_ids) == sorted(i for i in buyers if len(buyers[i]) >= least)


def test_parts_that_are_not_asked_for_are_not_read(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_task_split(shop, CONFIG)
    read: list[UserTasks] = []
    join = UserTasks.join
    monkeypatch.setattr(UserTasks, "join", lambda parts: read.append(join(parts)) or read[-1])
    some = load_task_split(shop, CONFIG, parts=("train", "validation"))
    assert [len(users) for users in read] == [len(whole.train) + len(whole.validation)]
    assert (len(some.test), len(some.locked)) == (0, 0)
    assert some.catalogue.item_ids == whole.catalogue.item_ids
    for part in ("train", "validation"):
        assert as_rows(getattr(some, part), some) == as_rows(getattr(whole, part), whole)


def test_an_item_that_was_only_shown_can_still_be_found(shop: Path) -> None:
    split = load_task_split(shop, CONFIG)
    ids = pq.read_table(shop / "tasks" / "items.parquet")["item_id"].to_pylist()
    stored, found = tasks_of(shop), set()
    for user, history in zip(split.train.user_ids, split.train, strict=True):
        row = stored[str(user)]
        shown = {
            ids[item]
            for item, kind, visit in zip(row["item"], row["event_type"], row["visit"], strict=True)
            if split.event_types[kind] == "impression" and visit < 2
        }
        _, query = cut(history, 2, unit="visits", positive_types=split.positive_types)
        found |= shown & {split.catalogue.item_ids[item] for item in query}
    assert found


def test_an_opened_folder_reads_its_users_when_asked(shop: Path) -> None:
    tasks = TaskDataset.open(shop)
    stored = tasks_of(shop)
    assert tasks.users.user_ids.tolist() == sorted(stored)
    assert len(tasks.users.events) == sum(len(row["item"]) for row in stored.values())
    one_block = replace(tasks, manifest={**tasks.manifest, "buckets": []})
    assert len(one_block.users) == 0


def test_places_of_most_training_users_are_known_by_index(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {
            "user_id": np.repeat([f"u{n:02d}" for n in range(40)], 6),
            "item_id": np.tile([f"i{n}" for n in range(6)], 40),
            "event_type": "purchase",
            "timestamp": np.tile(np.arange(6) * 86_400_000 + 1_700_000_000_000, 40),
            # every user shops twice downtown and at the mall, once at a stall of its own
            "branch": [
                place
                for n in range(40)
                for place in ("downtown", "downtown", "mall", "mall", f"stall {n}", None)
            ],
        }
    )
    log.to_csv(tmp_path / "events.csv", index=False)
    schema = LogSchema(events=EventSchema(columns=EventColumns(place="branch")))
    prepare(Files([tmp_path / "events.csv"], schema=schema), tmp_path / "data")
    config = DataConfig(min_item_users=1, min_units=4, max_places=10)
    split = load_task_split(tmp_path / "data", config)
    assert split.view.places == ("downtown", "mall")
    assert split.train[0].place.tolist() == [0, 0, 1, 1, -1, -1]
    support = support_from_events(split.train[:3], split.view)
    assert support["place"][0][support["mask"][0]].tolist() == [0, 0, 1, 1, -1, -1]
    unseen = load_task_split(tmp_path / "data", config.model_copy(update={"max_places": 0}))
    assert "place" not in support_from_events(unseen.train[:3], unseen.view)


def test_a_log_that_does_not_tell_places_says_so(shop: Path) -> None:
    with pytest.raises(DataError, match="place"):
        load_task_split(shop, CONFIG.model_copy(update={"max_places": 10}))


def test_events_of_too_small_a_value_are_left_out(shop: Path) -> None:
    plain = load_task_split(shop, CONFIG)
    values = plain.train.events.value
    least = float(np.nanquantile(values, 0.9))
    assert (values < least).any()
    split = load_task_split(shop, CONFIG.model_copy(update={"min_value": least}))
    assert not (split.train.events.value < least).any()
    assert np.isnan(split.train.events.value).sum() == np.isnan(values).sum()
    assert split.view.min_value == least
    [seen] = support_from_events([plain.train.events], replace(plain.view, min_value=least))[
        "value"
    ]
    assert not ((seen > 0.0) & (seen < least)).any()
