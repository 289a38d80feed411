"""A shop's own files: events, items and users in CSV, JSON Lines or Parquet, mapped by a schema."""

from collections.abc import Sequence
from pathlib import Path

from raymeta.data.cleaning import CleaningRules
from raymeta.data.readers import RowFile, row_files, split_file
from raymeta.data.schema import EVENT_TYPES, REQUIRED_COLUMNS, LogSchema, TableSchema
from raymeta.data.sources.base import FeatureTable, Log
from raymeta.data.tables import clean_table, read_table
from raymeta.errors import DataError


class Files:
    """Files or folders of files.

    Args:
        events: one or more event files or folders.
        items: the item table, if there is one.
        users: the user table, if there is one.
        schema: how their columns are called and typed.
    """

    def __init__(
        self,
        events: Sequence[str | Path],
        *,
        items: str | Path | None = None,
        users: str | Path | None = None,
        schema: LogSchema | None = None,
    ) -> None:
        self._events = [Path(path) for path in events]
        self._items = None if items is None else Path(items)
        self._users = None if users is None else Path(users)
        self._schema = LogSchema() if schema is None else schema

    def open(self) -> Log:
        """Finds the event files and reads the tables."""
        if not self._events:
            raise DataError("No event file is given.", remedy="Name it with --events FILE.")
        events = self._schema.events
        required = {name: getattr(events.columns, name) for name in REQUIRED_COLUMNS}
        if events.event_type is not None:
            del required["event_type"]
        columns = {**required, **events.columns.optional()}
        paths = row_files(self._events)
        units = [
            part
            for path in paths
            for part in split_file(RowFile(path, columns, delimiter=events.delimiter))
        ]
        own = () if events.event_type is None else (events.event_type,)
        rules = CleaningRules(
            optional=tuple(events.columns.optional()),
            event_types=tuple(dict.fromkeys((*EVENT_TYPES, *events.event_types, *own))),
            rename_event_types=events.rename_event_types,
            event_type=events.event_type,
            timestamp_format=events.timestamp_format,
            column_names=columns,
        )
        return Log(
            name="files",
            units=units,
            rules=rules,
            items=_table(self._items, self._schema.items, section="items"),
            users=_table(self._users, self._schema.users, section="users"),
            origin={"files": [path.name for path in paths]},
        )


def _table(path: Path | None, schema: TableSchema, *, section: str) -> FeatureTable | None:
    if path is None:
        return None
    (file,) = row_files([path])
    return clean_table(
        read_table(file, schema, section=section),
        id_column=schema.id,
        name={"items": "item_id", "users": "user_id"}[section],
        kinds=schema.columns,
        separator=schema.separator,
    )
