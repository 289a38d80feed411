"""`/v1/users/{id}`: what is known of a user, and its end. Ids may have slashes in them."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from raymeta.config.serving import DEFAULT
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import described, needs
from raymeta.serve.schemas.base import Id, MaybeName, Name
from raymeta.serve.schemas.users import (
    ErasureReceipt,
    UserExport,
    UserFeatures,
    UserResponse,
    UserStateResponse,
)
from raymeta.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of users."""
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    admin = Depends(needs(service, Scope.ADMIN))
    read, write = described("users", 404), described("users", 404, 413, 415)
    users = service.users

    # before the routes that end with the id, which would take "/state" for a part of it
    @app.get("/v1/users/{user_id:path}/state", **read)
    async def user_state(
        user_id: Id,
        caller: Annotated[Caller, reader],
        tenant: Name = DEFAULT,
        variant: MaybeName = None,
    ) -> UserStateResponse:
        """What the model makes of a user."""
        return await users.state(caller.tenant(tenant), user_id, variant=variant)

    @app.get("/v1/users/{user_id:path}/export", **read)
    async def export_user(
        user_id: Id, caller: Annotated[Caller, admin], tenant: Name = DEFAULT
    ) -> UserExport:
        """Everything that is stored of a user."""
        return await users.export(caller.tenant(tenant), user_id)

    # nor may another method take it for one
    for part in ("state", "export"):
        app.add_api_route(
            f"/v1/users/{{user_id:path}}/{part}",
            _not_allowed,
            methods=["PUT", "PATCH", "DELETE"],
            include_in_schema=False,
        )

    @app.get("/v1/users/{user_id:path}", **read)
    async def get_user(
        user_id: Id, caller: Annotated[Caller, reader], tenant: Name = DEFAULT
    ) -> UserResponse:
        """A user's features and counts."""
        return await users.get(caller.tenant(tenant), user_id)

    @app.put("/v1/users/{user_id:path}", **write)
    async def put_user(
        user_id: Id,
        request: UserFeatures,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> UserResponse:
        """Replaces all features of a user, who may be new."""
        return await users.put_features(caller.tenant(tenant), user_id, request, replace=True)

    @app.patch("/v1/users/{user_id:path}", **write)
    async def patch_user(
        user_id: Id,
        request: UserFeatures,
        caller: Annotated[Caller, writer],
        tenant: Name = DEFAULT,
    ) -> UserResponse:
        """Changes some features of a user; a null removes one."""
        return await users.put_features(caller.tenant(tenant), user_id, request, replace=False)

    @app.delete("/v1/users/{user_id:path}", **read)
    async def erase_user(
        user_id: Id, caller: Annotated[Caller, admin], tenant: Name = DEFAULT
    ) -> ErasureReceipt:
        """Erases a user, known or not; no event of before can come back."""
        return await users.erase(caller.tenant(tenant), user_id)


async def _not_allowed() -> None:
    raise HTTPException(405)
