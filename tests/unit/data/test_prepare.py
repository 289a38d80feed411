"""What a data set holds: order, visits, buckets, tables, hashes."""

import hashlib
import itertools
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raymeta.data.catalogue import Catalogue
from raymeta.data.dataset_dir import read_manifest
from raymeta.data.prepare import prepare
from raymeta.data.schema import EventColumns, EventSchema, LogSchema, load_feature_schema
from raymeta.data.sources.files import Files
from raymeta.data.sources.synthetic import SyntheticShop
from raymeta.data.synthetic_shop import Shop
from raymeta.data.task_dataset import TaskDataset
from tests.helpers.logs import events_of, mapped_schema, tasks_of, write_csv


def prepare_rows(tmp_path: Path, *rows: str, visits: bool = False) -> Path:
    names = {"value": None, "visit_id": "visit_id"} if visits else {}
    schema = LogSchema(events=EventSchema(columns=EventColumns(**names)))
    header = "user_id,item_id,event_type,timestamp" + (",visit_id" if visits else "")
    log = write_csv(tmp_path / "log.csv", rows, header=header)
    prepare(Files([log], schema=schema), tmp_path / "data")
    return tmp_path / "data"


def test_events_are_in_the_stated_order_and_visits_in_that_of_their_first_event(
    tmp_path: Path,
) -> None:
    data = prepare_rows(
        tmp_path,
        "u,b,view,100000020,B",
        "u,a,view,100000020,B",
        "u,a,cart,100000020,B",
        "u,z,view,100000020,A",  # begins with B's, and A sorts first
        "u,y,view,100000010,C",
        "u,x,view,100000030,B",
        visits=True,
    )
    row = tasks_of(data)["u"]
    items = pq.read_table(data / "tasks" / "items.parquet")["item_id"].to_pylist()
    assert items == ["a", "b", "x", "y", "z"]
    assert [items[i] for i in row["item"]] == ["y", "z", "a", "a", "b", "x"]
    assert row["visit"] == [0, 1, 2, 2, 2, 2]
    assert row["num_visits"] == 3
    types = json.loads((data / "tasks" / "manifest.json").read_text())["event_types"]
    assert [types[t] for t in row["event_type"]] == ["view", "view", "cart", "view", "view", "view"]
    assert [event["item_id"] for event in events_of(data)] == ["y", "z", "a", "a", "b", "x"]


def test_a_pause_of_more_than_the_gap_starts_a_visit(tmp_path: Path) -> None:
    start, gap = 1_700_000_000, 30 * 60
    data = prepare_rows(
        tmp_path,
        f"u,a,view,{start}",
        f"u,b,view,{start + gap}",
        f"u,c,view,{start + 2 * gap + 1}",
        f"v,a,view,{start + 2 * gap + 2}",
    )
    assert tasks_of(data)["u"]["visit"] == [0, 0, 1]
    assert tasks_of(data)["v"]["visit"] == [0]


def test_events_without_a_visit_id_are_visits_of_their_own_by_the_gap(tmp_path: Path) -> None:
    data = prepare_rows(
        tmp_path,
        "u,a,view,1700000000,B",
        "u,b,view,1700000005,",
        "u,c,view,1700000010,B",
        "u,d,view,1700000015,",
        "u,e,view,1700009999,",
        visits=True,
    )
    assert tasks_of(data)["u"]["visit"] == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("value", ["2024-01-31T10:00:00Z", "2024-01-31 11:00:00+01:00"])
@pytest.mark.parametrize("other", ["1706695200", "1706695200000", "2024-01-31 10:00"])
def test_times_of_every_kind_are_the_same_instant(tmp_path: Path, value: str, other: str) -> None:
    data = prepare_rows(tmp_path, f"u,a,view,{value}", f"u,b,view,{other}")
    assert tasks_of(data)["u"]["timestamp_ms"] == [1_706_695_200_000] * 2


def test_an_item_has_a_row_whether_the_table_or_the_log_names_it(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,7,view,2024-01-01,", "u1,9,buy,2024-01-02,3"])
    items = write_csv(tmp_path / "items.csv", ["7,red", "8,blue"], header="sku,colour")
    schema = mapped_schema(columns={"colour": "categorical"})
    prepare(Files([log], items=items, schema=schema), tmp_path / "data")
    assert pq.read_table(tmp_path / "data" / "items.parquet").to_pylist() == [
        {"item_id": "7", "colour": "red"},
        {"item_id": "8", "colour": "blue"},
        {"item_id": "9", "colour": None},
    ]
    counts = read_manifest(tmp_path / "data")["counts"]
    assert (counts["items"], counts["items_in_log"], counts["items_without_features"]) == (3, 2, 1)
    assert load_feature_schema(tmp_path / "data").items == {"colour": "categorical"}


@pytest.fixture(scope="module")
def shop_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop") / "data"
    shop = Shop(num_users=150, num_items=120, num_visits=2_000, seed=3)
    prepare(SyntheticShop(shop), out)
    return out


def test_manifests_are_true_and_bound_to_each_other(shop_dir: Path) -> None:
    manifest = read_manifest(shop_dir)
    for name, expected in manifest["sha256"].items():
        assert hashlib.sha256((shop_dir / name).read_bytes()).hexdigest() == expected
    files = {p.relative_to(shop_dir).as_posix() for p in shop_dir.rglob("*") if p.is_file()}
    assert set(manifest["sha256"]) == files - {"manifest.json", "tasks/manifest.json"}
    tasks = json.loads((shop_dir / "tasks" / "manifest.json").read_text())
    text = (shop_dir / "manifest.json").read_bytes()
    assert tasks["dataset_sha256"] == hashlib.sha256(text).hexdigest()
    assert tasks["num_events"] == manifest["counts"]["events"] == len(events_of(shop_dir))
    assert sum(manifest["event_types"].values()) == tasks["num_events"]


def test_buckets_hold_every_user_once_by_length(shop_dir: Path) -> None:
    tasks = json.loads((shop_dir / "tasks" / "manifest.json").read_text())
    users: list[str] = []
    for bucket in tasks["buckets"]:
        rows = pq.read_table(shop_dir / "tasks" / bucket["file"]).to_pylist()
        lengths = [len(row["item"]) for row in rows]
        assert (min(lengths), max(lengths)) == (bucket["min_events"], bucket["max_events"])
        assert (len(rows), sum(lengths)) == (bucket["num_users"], bucket["num_events"])
        users += [row["user_id"] for row in rows]
    assert len(users) == len(set(users)) == tasks["num_users"]
    bounds = [(b["min_events"], b["max_events"]) for b in tasks["buckets"]]
    assert all(below[1] < above[0] for below, above in itertools.pairwise(bounds))


def test_task_rows_are_the_events(shop_dir: Path) -> None:
    by_user: dict[str, list[tuple[object, ...]]] = {}
    for event in events_of(shop_dir):
        moment = round(event["timestamp"].timestamp() * 1000)
        row = (event["item_id"], event["event_type"], moment, event["query"], event["position"])
        by_user.setdefault(event["user_id"], []).append(row)
    items = pq.read_table(shop_dir / "tasks" / "items.parquet")["item_id"].to_pylist()
    types = json.loads((shop_dir / "tasks" / "manifest.json").read_text())["event_types"]
    for user, row in tasks_of(shop_dir).items():
        rebuilt = zip(
            [None if i < 0 else items[i] for i in row["item"]],
            [types[t] for t in row["event_type"]],
            row["timestamp_ms"],
            row["query"],
            row["position"],
            strict=True,
        )
        assert list(rebuilt) == by_user[user]


def test_a_search_has_no_item_and_gets_none_in_a_catalogue(shop_dir: Path) -> None:
    dataset = TaskDataset.open(shop_dir)
    search = dataset.event_type_indices(["search"])[0]
    searches = dataset.users.events.event_type == search
    assert searches.any()
    assert (dataset.users.events.item[searches] == -1).all()
    assert (dataset.users.events.item[~searches] >= 0).all()
    catalogue = Catalogue(pq.read_table(shop_dir / "items.parquet").slice(0, 50))
    local = catalogue.localise(dataset.users, dataset.item_ids)
    assert (local.events.item[searches] == -1).all()


def test_the_same_log_gives_the_same_bytes(shop_dir: Path, tmp_path: Path) -> None:
    shop = Shop(num_users=150, num_items=120, num_visits=2_000, seed=3)
    prepare(SyntheticShop(shop), tmp_path / "again")
    assert read_manifest(tmp_path / "again") == read_manifest(shop_dir)
