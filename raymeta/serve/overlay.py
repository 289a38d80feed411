"""A model with a shop's changes to its items: new ones encoded, others closed or re-described.

Pure: an artifact and changes in, an artifact and an item table out. An item that training saw keeps
its trained vector whatever its features become; one that it did not see gets a vector from them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raymeta.errors import SchemaError
from raymeta.serve.item_table import ItemTable
from raymeta.serve.user_events.base import ItemChange

if TYPE_CHECKING:
    from raymeta.artifact import Artifact


def overlay(
    artifact: "Artifact", changes: Mapping[str, ItemChange], *, version: int
) -> tuple["Artifact", ItemTable]:
    """The artifact with the new items among `changes`, and what can be asked of its items.

    Args:
        artifact: as it was trained.
        changes: item id -> its present form.
        version: of the catalogue that they make.
    """
    known = artifact.catalogue.index_of
    new = {
        item_id: change
        for item_id, change in sorted(changes.items())
        if item_id not in known and not change.deleted
    }
    extended = artifact
    if new and not missing_encoder(artifact):
        extended = artifact.with_items(_table(artifact, new))
    catalogue = extended.catalogue
    return extended, ItemTable(catalogue.items, catalogue.index_of, dict(changes), version)


def new_items_key(artifact: "Artifact", changes: Mapping[str, ItemChange]) -> str:
    """Names the new items and what is known of them: equal keys give equal extended artifacts."""
    known = artifact.catalogue.index_of
    new = [
        (item_id, _known_features(artifact, change))
        for item_id, change in sorted(changes.items())
        if item_id not in known and not change.deleted
    ]
    return hashlib.sha256(json.dumps(new, sort_keys=True).encode()).hexdigest()


def missing_encoder(artifact: "Artifact") -> str | None:
    """Why new items cannot be recommended with this artifact; None if they can."""
    if artifact.item_encoder is None:
        return "The items that the model was trained on had no features."
    return None


def require_encodable(artifact: "Artifact", changes: Mapping[str, ItemChange]) -> None:
    """Refuses features of the wrong kind before they are stored.

    Raises:
        SchemaError: naming the feature and what it must be.
    """
    for item_id, change in changes.items():
        try:
            _table(artifact, {item_id: change})
        except SchemaError as error:
            raise SchemaError(f"Item {item_id!r}: {error.message}", remedy=error.remedy) from None


def _table(artifact: "Artifact", items: Mapping[str, ItemChange]) -> pa.Table:
    records = [_known_features(artifact, change) for change in items.values()]
    table: pa.Table = artifact.catalogue.vocab.table(records)
    return table.append_column("item_id", pa.array(list(items), pa.string()))


def _known_features(artifact: "Artifact", change: ItemChange) -> dict[str, Any]:
    """Those that the model reads; the others are for filters alone."""
    reads = {field.column for field in artifact.catalogue.vocab.fields}
    return {name: value for name, value in change.features.items() if name in reads}
