"""Health, for which no key is asked, and what is served."""

from typing import Annotated

from fastapi import Depends, FastAPI

from raymeta.config.serving import DEFAULT
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import described, needs, problems
from raymeta.serve.schemas.base import Name
from raymeta.serve.schemas.operations import Health, ModelsResponse, ReadyResponse
from raymeta.serve.service import Service

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What needs no key: a load balancer has none, and neither tells anything of a user."""


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of the service itself."""

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="ok")

    @app.get("/readyz", tags=["operations"], responses=problems())
    async def readyz() -> ReadyResponse:
        """Models are loaded and the store answers."""
        return await service.ready()

    @app.get("/v1/models", **described("operations"))
    async def models(
        caller: Annotated[Caller, Depends(needs(service, Scope.READ))], tenant: Name = DEFAULT
    ) -> ModelsResponse:
        """The artifacts that answer, and what they were trained for."""
        return service.describe_models(caller.tenant(tenant))
