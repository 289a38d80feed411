"""Online Retail II (UCI 502): the order lines of a gift shop, from a folder with its files.

An event is a purchased order line; its `value` is the quantity and its visit the invoice. The log
needs more care than cleaning gives: its sheets overlap by nine days, a cancelled line stands beside
the purchase that it takes back, postage and corrections look like products, and a quarter of the
lines have no customer. What is left out is refused with its reason, never dropped.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.data.cleaning import REJECT_REASON, CleaningRules
from raymeta.data.conversion import to_milliseconds, to_numbers, to_text
from raymeta.data.schema import FeatureKind
from raymeta.data.sources.base import FeatureTable, Log, TableUnit
from raymeta.errors import DataError, SchemaError

_NOTES = (
    "Online Retail II, Chen, D. (2012), UCI Machine Learning Repository, "
    "doi:10.24432/C5CG6D, CC BY 4.0.",
    "Many customers are wholesalers; quantities are theirs.",
    "Times are read as given, in UTC; the log names no zone.",
    "value is the quantity of the line; an item on several lines of an invoice counts once.",
)

# Both releases of the file and plain exports of them; compared in lower case without signs.
_NAMES = {
    "invoice": ("invoice", "invoiceno"),
    "stock_code": ("stockcode",),
    "description": ("description",),
    "quantity": ("quantity",),
    "timestamp": ("invoicedate", "ts", "timestamp"),
    "price": ("price", "unitprice"),
    "customer": ("customerid", "customer"),
    "country": ("country",),
}

_NOT_PRODUCTS = (
    r"(?i)^(?:POST|DOT|M|D|B|S|C2|C3|CRUK|AMAZONFEE|BANK CHARGES|ADJUST\d*|TEST\d*|GIFT.*)$"
)
"""Postage, manual entries, discounts, bad debt, samples, carriage, fees, corrections, vouchers."""


class OnlineRetail:
    """The log in a folder of Parquet, CSV or Excel files.

    Args:
        folder: has the files of the UCI archive, one a sheet or the workbook itself.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def open(self) -> Log:
        """Reads all files (a million rows; a workbook takes minutes, Parquet a second)."""
        sheets = [_normalised(name, table, line) for name, table, line in _read(self._folder)]
        sheets.sort(key=lambda sheet: sheet["timestamp_ms"].min())
        lines = pd.concat(sheets, ignore_index=True)
        lines[REJECT_REASON] = reject_reasons(lines)
        kept = lines[lines[REJECT_REASON].isna()]
        names = list(dict.fromkeys(lines["sheet"]))
        return Log(
            name="online-retail",
            units=[_unit(name, lines[lines["sheet"] == name]) for name in names],
            rules=CleaningRules(optional=("value", "visit_id"), event_type="purchase"),
            items=_items(kept),
            users=_users(kept),
            origin={"files": names, "rows": len(lines)},
            notes=_NOTES,
        )


def reject_reasons(lines: pd.DataFrame) -> pd.Series:
    """Why each order line is no purchase, None where it is one; the first reason counts.

    Args:
        lines: columns sheet, invoice, stock_code, quantity, timestamp_ms, price, customer; sheets
            in the order of time.
    """
    reason = pd.Series([None] * len(lines), index=lines.index, dtype="object")

    def refuse(rows: pd.Series, why: str) -> None:
        reason[rows & reason.isna()] = why

    refuse(_is_repeated_by_later_sheet(lines), "in a later sheet too")
    refuse(lines["customer"].isna(), "no customer")
    not_product = lines["stock_code"].isna() | lines["stock_code"].str.match(_NOT_PRODUCTS)
    refuse(not_product.astype(bool), "not a product (postage, fee, correction, voucher)")
    cancels = lines["invoice"].str.startswith("C").fillna(False).astype(bool)
    usable = reason.isna()
    refuse(cancels, "cancellation")
    taken_back = cancelled_purchases(lines[usable], cancels[usable])
    refuse(lines.index.to_series().isin(taken_back), "purchase that was cancelled")
    refuse(~(lines["quantity"] > 0), "quantity not above 0")
    refuse(~(lines["price"] > 0), "price not above 0")
    return reason


def cancelled_purchases(lines: pd.DataFrame, cancels: pd.Series) -> NDArray[np.int64]:
    """The index of each purchase that a later line of the same customer cancels in full.

    A cancellation takes back the latest purchase of the same item and quantity that is not taken
    back yet, as a closing bracket belongs to the last open one.
    """
    work = pd.DataFrame(
        {
            "customer": lines["customer"],
            "stock_code": lines["stock_code"],
            "quantity": lines["quantity"].abs(),
            "timestamp_ms": lines["timestamp_ms"],
            "step": np.where(cancels, -1, 1),
        }
    )
    key = ["customer", "stock_code", "quantity"]
    work = work[work.groupby(key)["step"].transform("min") == -1]
    work = work.sort_values(["timestamp_ms", "step"], ascending=[True, False], kind="stable")
    total = work.groupby(key)["step"].cumsum()
    floor = total.groupby([work[name] for name in key]).cummin().clip(upper=0)
    open_after = total - floor
    closes = work["step"] == -1
    before = open_after.groupby([work[name] for name in key]).shift(fill_value=0)
    work = work.assign(level=np.where(closes, open_after + 1, open_after), closes=closes)
    work = work[~closes | (before > 0)]  # a cancellation without a purchase in the log
    # at one level, openings and closings take turns
    closed_next = work.groupby([*key, "level"])["closes"].shift(-1, fill_value=False)
    return work.index[closed_next & ~work["closes"]].to_numpy()


def _is_repeated_by_later_sheet(lines: pd.DataFrame) -> pd.Series:
    last_sheet = pd.Series(pd.factorize(lines["sheet"])[0], index=lines.index)
    return last_sheet < last_sheet.groupby(lines["invoice"]).transform("max")


def _unit(name: str, lines: pd.DataFrame) -> TableUnit:
    columns = {
        "user_id": lines["customer"],
        "item_id": lines["stock_code"],
        "value": lines["quantity"],
        "visit_id": lines["invoice"],
        REJECT_REASON: lines[REJECT_REASON],
    }
    table = pa.table({k: pa.Array.from_pandas(v) for k, v in columns.items()})
    moment = pa.array(lines["timestamp_ms"].to_numpy(), pa.timestamp("ms"))
    return TableUnit(
        name=name,
        table=table.append_column("timestamp", moment),
        line=lines["line"].to_numpy(np.int64),
    )


def _items(kept: pd.DataFrame) -> FeatureTable:
    # notes such as "damaged" stand among the titles of an item; the most frequent one is its title
    named = kept.dropna(subset=["description"])
    counts = named.groupby(["stock_code", "description"]).size().reset_index(name="lines")
    counts = counts.sort_values(["lines", "description"], ascending=[False, True])
    title = counts.drop_duplicates("stock_code").set_index("stock_code")["description"]
    price = kept.groupby("stock_code")["price"].median()
    table = pa.table(
        {
            "item_id": pa.array(price.index.astype(str).tolist(), pa.string()),
            "title": pa.array(
                [
                    t.capitalize() if isinstance(t, str) else None
                    for t in title.reindex(price.index)
                ],
                pa.string(),
            ),
            "price": pa.array(price.to_numpy(np.float64)),
        }
    )
    return FeatureTable(table, {"title": FeatureKind.TEXT, "price": FeatureKind.NUMERIC})


def _readable(title: object) -> str | None:
    """`LUNCH BAG SUKI  DESIGN` as `Lunch bag suki design`."""
    return " ".join(title.split()).capitalize() if isinstance(title, str) else None


def _users(kept: pd.DataFrame) -> FeatureTable:
    country = kept.groupby("customer")["country"].last()
    table = pa.table(
        {
            "user_id": pa.array(country.index.astype(str).tolist(), pa.string()),
            "country": pa.array(country.astype(object).tolist(), pa.string()),
        }
    )
    return FeatureTable(table, {"country": FeatureKind.CATEGORICAL})


def _normalised(name: str, table: pa.Table, first_line: int) -> pd.DataFrame:
    """The columns under one set of names and types, whatever the release called them."""
    found = {"".join(filter(str.isalnum, column.lower())): column for column in table.column_names}
    columns = {}
    for ours, theirs in _NAMES.items():
        match = next((found[alias] for alias in theirs if alias in found), None)
        if match is None:
            raise SchemaError(
                f"{name} has no column for {ours}; it has: {', '.join(table.column_names)}.",
                remedy="Give the files of Online Retail II with their own column names.",
            )
        columns[ours] = table.column(match)
    millis, readable = to_milliseconds(columns["timestamp"])
    if not readable.any():
        raise SchemaError(
            f"{name}: the column {'timestamp'!r} holds no readable time.",
            remedy="Give the files of Online Retail II as they were published.",
        )
    text = {
        ours: to_text(columns[ours]).to_pandas().astype("object")
        for ours in ("invoice", "stock_code", "description", "customer", "country")
    }
    return pd.DataFrame(
        {
            **text,
            "stock_code": text["stock_code"].str.upper(),
            # an export that met a missing customer wrote all of them as 17850.0
            "customer": text["customer"].str.removesuffix(".0"),
            "quantity": to_numbers(columns["quantity"])[0],
            "price": to_numbers(columns["price"])[0],
            "timestamp_ms": millis,
            "sheet": name,
            "line": np.arange(first_line, first_line + len(millis)),
        }
    )


def _read(folder: Path) -> list[tuple[str, pa.Table, int]]:
    """Name, rows and the line of the first row, of each sheet in the folder."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.", remedy="Give --path the folder.")
    sheets: list[tuple[str, pa.Table, int]] = []
    for path in sorted(folder.iterdir()):
        read = _READERS.get(path.suffix.lower())
        if read is not None:
            sheets += read(path)
    if not sheets:
        raise DataError(
            f"{folder} holds no .parquet, .csv or .xlsx file.",
            remedy="Put the files of Online Retail II there "
            "(https://archive.ics.uci.edu/dataset/502/online+retail+ii).",
        )
    return sheets


def _read_parquet(path: Path) -> Sequence[tuple[str, pa.Table, int]]:
    try:
        return [(path.name, pq.read_table(path), 1)]
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"{path.name} is not a Parquet file: {error}", remedy="Download it again."
        ) from None


def _read_csv(path: Path) -> Sequence[tuple[str, pa.Table, int]]:
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    for encoding in ("utf8", "latin1"):  # exports of the older release are in latin-1
        options = pyarrow.csv.ReadOptions(encoding=encoding)
        # ids such as 536365 and C536379 share a column, so that no type is guessed
        names = pyarrow.csv.open_csv(path, read_options=options, parse_options=parse).schema.names
        convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        try:
            table = pyarrow.csv.read_csv(
                path, read_options=options, parse_options=parse, convert_options=convert
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            continue
        return [(path.name, table, 2)]
    raise SchemaError(f"{path.name} is not a CSV file.", remedy="Download it again.")


def _read_excel(path: Path) -> Sequence[tuple[str, pa.Table, int]]:
    try:
        import openpyxl  # noqa: F401  (pandas reports its absence less clearly)
    except ImportError:
        raise DataError(
            f"{path.name} is an Excel workbook, and openpyxl is not installed.",
            remedy="Install it with: pip install 'raymeta[excel]'",
        ) from None
    sheets = pd.read_excel(path, sheet_name=None, dtype={"Invoice": str, "StockCode": str})
    return [
        (f"{path.name}[{name}]", pa.Table.from_pandas(_texts_apart(frame)), 2)
        for name, frame in sheets.items()
    ]


def _texts_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of mixed cells (invoice numbers and C-numbers) as text; Arrow wants one type."""
    frame = frame.copy()
    for column in frame:
        if frame[column].dtype == object:
            frame[column] = frame[column].map(str, na_action="ignore")
    return frame


_READERS: dict[str, Callable[[Path], Sequence[tuple[str, pa.Table, int]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".xlsx": _read_excel,
}
