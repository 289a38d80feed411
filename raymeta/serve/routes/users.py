"""`/v1/users/{id}`: what is known of a user, and its end. Ids may have slashes in them."""

from typing import Annotated

from fastapi import APIRouter, Depends

from raymeta.config.serving import DEFAULT
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import described, needs
from raymeta.serve.schemas.base import Id, Name
from raymeta.serve.schemas.users import (
    ErasureReceipt,
    UserExport,
    UserFeatures,
    UserResponse,
    UserStateResponse,
)
from raymeta.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The routes of users."""
    router = APIRouter(tags=["users"])
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    admin = Depends(needs(service, Scope.ADMIN))
    read, write = described(404), described(413, 415)
    users = service.users

    # before the routes that end with the id, which would take "/state" for a part of it
    @router.get("/v1/users/{user_id:path}/state", **read)
    async def user_state(
        user_id: Id,
        caller: Annotated[Caller, reader],
        tenant: Name = DEFAULT,
        variant: Name | None = None,
    ) -> UserStateResponse:
        """What the model makes of a user."""
        return await users.state(caller.tenant(tenant), user_id, variant=variant)

    @router.get("/v1/users/{user_id:path}/export", **read)
    async def export_user(
        user_id: Id, caller: Annotated[Caller, admin], tenant: Name = DEFAULT
    ) -> UserExport:
        """Everything that is stored of a user."""
        return await users.export(caller.tenant(tenant), user_id)

    @router.get("/v1/users/{user_id:path}", **read)
    async def get_user(
        user_id: Id, caller: Annotated[Caller, reader], tenant: Name = DEFAULT
    ) -> UserResponse:
        """A user's features and counts."""
        return await users.get(caller.tenant(tenant), user_id)

    @router.put("/v1/users/{user_id:path}", **write)
    async def put_user(
        user_id: Id,
        request: UserFeatures,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> UserResponse:
        """Replaces all features of a user, who may be new."""
        return await users.put_features(caller.tenant(tenant), user_id, request, replace=True)

    @router.patch("/v1/users/{user_id:path}", **write)
    async def patch_user(
        user_id: Id,
        request: UserFeatures,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> UserResponse:
        """Changes some features of a user; a null removes one."""
        return await users.put_features(caller.tenant(tenant), user_id, request, replace=False)

    @router.delete("/v1/users/{user_id:path}", **read)
    async def erase_user(
        user_id: Id, caller: Annotated[Caller, admin], tenant: Name = DEFAULT
    ) -> ErasureReceipt:
        """Erases a user, known or not; no event of before can come back."""
        return await users.erase(caller.tenant(tenant), user_id)

    return router
