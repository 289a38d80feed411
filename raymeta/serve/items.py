"""The shop's changes to its items: kept in the store, and in every model's catalogue at once."""

from collections.abc import Sequence

from raymeta.config.serving import LimitsConfig
from raymeta.errors import UnknownItemError
from raymeta.serve.models import Models, TenantModels
from raymeta.serve.overlay import missing_encoder, require_encodable
from raymeta.serve.schemas.items import (
    ItemPatch,
    ItemResponse,
    ItemsRequest,
    ItemsResponse,
    ItemValues,
)
from raymeta.serve.user_events.base import EventStore, ItemChange
from raymeta.serve.users import require_small
from raymeta.serve.writes import at_most


class Items:
    """Changes and describes items.

    Args:
        store: where changes are kept.
        models: whose catalogues they change.
        limits: how many and how large.
    """

    def __init__(self, store: EventStore, models: Models, *, limits: LimitsConfig) -> None:
        self._store = store
        self._models = models
        self._limits = limits

    async def get(self, tenant: str, item_id: str) -> ItemResponse:
        """An item as the tenant's default model has it.

        Raises:
            UnknownItemError: there is none of that id, or the shop took it out.
        """
        models = await self._newest(tenant)
        table = models.default.recommender.items
        features = table.describe(item_id)
        if features is None:
            raise UnknownItemError(
                f"There is no item {item_id!r} in tenant {tenant!r}.",
                remedy="Add it with PUT /v1/items/ID.",
            )
        change = table.changes.get(item_id)
        return ItemResponse(
            item_id=item_id,
            tenant=tenant,
            features=features,
            available=change.available if change is not None else True,
            recommendable=item_id in table.index_of,
            catalogue_version=change.version if change is not None else 0,
        )

    async def put(self, tenant: str, item_id: str, values: ItemValues) -> ItemsResponse:
        """Adds or replaces one item."""
        change = ItemChange(item_id, values.features, values.available)
        return await self._apply(tenant, [change])

    async def put_many(self, request: ItemsRequest) -> ItemsResponse:
        """Adds or replaces items, in one version of the catalogue."""
        at_most("items", len(request.items), self._limits.max_items)
        changes = {
            item.item_id: ItemChange(item.item_id, item.features, item.available)
            for item in request.items
        }
        return await self._apply(request.tenant, list(changes.values()))

    async def patch(self, tenant: str, item_id: str, patch: ItemPatch) -> ItemsResponse:
        """Changes features or availability of an item that there is.

        Raises:
            UnknownItemError: there is none of that id.
        """
        before = await self.get(tenant, item_id)
        merged = {**before.features, **patch.features}
        available = before.available if patch.available is None else patch.available
        features = {name: value for name, value in merged.items() if value is not None}
        return await self._apply(tenant, [ItemChange(item_id, features, available)])

    async def delete(self, tenant: str, item_id: str) -> ItemsResponse:
        """Takes an item out of recommendations; events on it stay.

        Raises:
            UnknownItemError: there is none of that id.
        """
        await self.get(tenant, item_id)
        return await self._apply(tenant, [ItemChange(item_id, deleted=True)])

    async def _apply(self, tenant: str, changes: Sequence[ItemChange]) -> ItemsResponse:
        models = self._models.tenant(tenant)
        for change in changes:
            require_small(
                f"features of {change.item_id!r}", change.features, self._limits.max_feature_bytes
            )
        for model in models.all_models():
            require_encodable(model.trained, {change.item_id: change for change in changes})
        version = await self._store.put_items(tenant, changes)
        models = await self._models.refresh(tenant, catalogue=version)
        known = models.default.recommender.items.index_of
        able = sum(change.item_id in known and not change.deleted for change in changes)
        lacking = any(change.item_id not in known and not change.deleted for change in changes)
        return ItemsResponse(
            catalogue_version=version,
            recommendable=able,
            reason=missing_encoder(models.default.trained) if lacking else None,
        )

    async def _newest(self, tenant: str) -> TenantModels:
        self._models.tenant(tenant)
        version = await self._store.version(tenant, "")
        return await self._models.refresh(tenant, catalogue=version.catalogue)
