"""`/v1/items/{id}`: the shop's changes to its items. Ids may have slashes in them."""

from typing import Annotated

from fastapi import Depends, FastAPI

from raymeta.config.serving import DEFAULT
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import described, needs
from raymeta.serve.schemas.base import Id, Name
from raymeta.serve.schemas.items import (
    ItemPatch,
    ItemResponse,
    ItemsRequest,
    ItemsResponse,
    ItemValues,
)
from raymeta.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of items."""
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    described_item = described("items", 404, 413, 415)
    items = service.items

    @app.post("/v1/items:batch", **described_item)
    async def put_items(request: ItemsRequest, caller: Annotated[Caller, writer]) -> ItemsResponse:
        """Adds or replaces items, in one version of the catalogue."""
        caller.tenant(request.tenant)
        return await items.put_many(request)

    @app.get("/v1/items/{item_id:path}", **described_item)
    async def get_item(
        item_id: Id, caller: Annotated[Caller, reader], tenant: Name = DEFAULT
    ) -> ItemResponse:
        """An item as the model and the shop have it."""
        return await items.get(caller.tenant(tenant), item_id)

    @app.put("/v1/items/{item_id:path}", **described_item)
    async def put_item(
        item_id: Id,
        request: ItemValues,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> ItemsResponse:
        """Adds or replaces an item; a new one is recommendable at once, from its features."""
        return await items.put(caller.tenant(tenant), item_id, request)

    @app.patch("/v1/items/{item_id:path}", **described_item)
    async def patch_item(
        item_id: Id,
        request: ItemPatch,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> ItemsResponse:
        """Changes some features of an item, or whether it is available."""
        return await items.patch(caller.tenant(tenant), item_id, request)

    @app.delete("/v1/items/{item_id:path}", **described_item)
    async def delete_item(
        item_id: Id, caller: Annotated[Caller, writer], tenant: Name = DEFAULT
    ) -> ItemsResponse:
        """Takes an item out of recommendations; events on it stay."""
        return await items.delete(caller.tenant(tenant), item_id)
