"""The generated shop as a source: its log is made while it is read."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from raymeta.data.cleaning import CleaningRules, RawBlock
from raymeta.data.schema import REQUIRED_COLUMNS, FeatureKind
from raymeta.data.sources.base import FeatureTable, Log
from raymeta.data.synthetic_shop import (
    EVENT_COLUMNS,
    VISITS_PER_SLICE,
    Shop,
    item_table,
    iter_slices,
    user_table,
)

_EVENTS_PER_VISIT = 13
_SLICES_PER_UNIT = 8


@dataclass(frozen=True)
class ShopUnit:
    """Some slices of a shop's visits."""

    shop: Shop
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"slices {self.start} to {self.stop - 1}"

    @property
    def num_rows_hint(self) -> int:
        visits = min(self.stop * VISITS_PER_SLICE, self.shop.num_visits)
        return (visits - self.start * VISITS_PER_SLICE) * _EVENTS_PER_VISIT

    def blocks(self) -> Iterator[RawBlock]:
        row = 0
        for table in iter_slices(self.shop, self.start, self.stop):
            yield RawBlock(table, np.arange(row + 1, row + 1 + table.num_rows))
            row += table.num_rows


class SyntheticShop:
    """A shop that is made up, with a known click model.

    Args:
        shop: how large it is, and its seed.
    """

    def __init__(self, shop: Shop | None = None) -> None:
        self._shop = Shop() if shop is None else shop

    def open(self) -> Log:
        """Makes the tables; the events come when the units are read."""
        shop = self._shop
        bounds = range(0, shop.num_slices, _SLICES_PER_UNIT)
        optional = [name for name in EVENT_COLUMNS.names if name not in REQUIRED_COLUMNS]
        return Log(
            name="synthetic",
            units=[
                ShopUnit(shop, start, min(start + _SLICES_PER_UNIT, shop.num_slices))
                for start in bounds
            ],
            rules=CleaningRules(optional=tuple(optional)),
            items=FeatureTable(
                item_table(shop),
                {
                    "title": FeatureKind.IGNORE,
                    "category": FeatureKind.CATEGORICAL,
                    "brand": FeatureKind.CATEGORICAL,
                    "price": FeatureKind.NUMERIC,
                },
            ),
            users=FeatureTable(user_table(shop), {"segment": FeatureKind.CATEGORICAL}),
            origin=asdict(shop),
            notes=("Generated: nobody bought these things.",),
        )
