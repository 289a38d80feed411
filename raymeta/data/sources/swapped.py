"""A log with users and items exchanged: each item becomes a task, and its users the catalogue.

What a few events say of a new user is the same question as what a few impressions say of a new ad,
which Pan et al. answer by meta-learning ("Warm Up Cold-start Advertisements", SIGIR 2019): with the
roles exchanged, an embedding is made from the ad's features and moved by gradient steps on its
first impressions, with the code that adapts to users.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from raymeta.data.cleaning import RawBlock
from raymeta.data.sources.base import EventUnit, FeatureTable, Log, Source

_ROLES = {"user_id": "item_id", "item_id": "user_id"}


@dataclass(frozen=True)
class Swapped:
    """Another source's log, its items in the role of users.

    Args:
        source: whose visits and other tables are left out: both are of its users.
    """

    source: Source

    def open(self) -> Log:
        """The log of `source`, exchanged."""
        log = self.source.open()
        rules = replace(
            log.rules,
            optional=tuple(name for name in log.rules.optional if name != "visit_id"),
            column_names=_exchanged(log.rules.column_names),
        )
        return replace(
            log,
            units=[_Unit(unit) for unit in log.units],
            rules=rules,
            items=_in_the_role_of(log.users, "item_id"),
            users=_in_the_role_of(log.items, "user_id"),
            extras={},
            notes=(*log.notes, "Users and items are exchanged: an item is a task."),
        )


@dataclass(frozen=True)
class _Unit:
    """A unit whose rows have the two ids exchanged."""

    unit: EventUnit

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def num_rows_hint(self) -> int:
        return self.unit.num_rows_hint

    def blocks(self) -> Iterator[RawBlock]:
        for block in self.unit.blocks():
            names = [_ROLES.get(name, name) for name in block.table.column_names]
            yield replace(block, table=block.table.rename_columns(names))


def _in_the_role_of(table: FeatureTable | None, id_column: str) -> FeatureTable | None:
    if table is None:
        return None
    names = [id_column, *table.table.column_names[1:]]
    return replace(table, table=table.table.rename_columns(names))


def _exchanged(names: Mapping[str, str]) -> dict[str, str]:
    return {_ROLES.get(name, name): shown for name, shown in names.items()}
