"""How live variants do."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query

from raymeta.config.serving import DEFAULT
from raymeta.evaluation.online.attribution import Windows
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import described, needs
from raymeta.serve.schemas.base import Name
from raymeta.serve.schemas.live import LiveNumbers
from raymeta.serve.schemas.online import ExperimentsResponse, OnlineMetricsResponse
from raymeta.serve.service import Service

_MAX_WINDOW_H = 90 * 24.0
_HOUR_MS = 3_600_000


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of experiments on live traffic."""

    @app.get("/v1/experiments", **described("operations"))
    async def experiments(
        caller: Annotated[Caller, Depends(needs(service, Scope.READ))], tenant: Name = DEFAULT
    ) -> ExperimentsResponse:
        """How users are dealt to variants."""
        return service.online.experiments(caller.tenant(tenant))

    @app.get("/ops/live", include_in_schema=False)
    async def live(
        caller: Annotated[Caller, Depends(needs(service, Scope.ADMIN))], tenant: Name = DEFAULT
    ) -> LiveNumbers:
        """For the operator's page; programs read the same numbers at Ray's metrics ports."""
        return await service.live.numbers(caller.tenant(tenant))

    @app.get("/v1/metrics/online", **described("operations"))
    async def online_metrics(
        caller: Annotated[Caller, Depends(needs(service, Scope.ADMIN))],
        tenant: Name = DEFAULT,
        click_hours: Annotated[float, Query(gt=0.0, le=_MAX_WINDOW_H)] = 24.0,
        conversion_hours: Annotated[float, Query(gt=0.0, le=_MAX_WINDOW_H)] = 168.0,
    ) -> OnlineMetricsResponse:
        """Click and conversion rates by variant with intervals, the split's alarm, interleavings.

        Send what was shown as `impression` events with the answer's `recommendation_id` as
        `ranking_id` and their `position`, and what follows with the same `ranking_id`. Worked out
        from all retained events at every call: for a report, not for every page.
        """
        windows = Windows(int(click_hours * _HOUR_MS), int(conversion_hours * _HOUR_MS))
        return await service.online.metrics(caller.tenant(tenant), windows)
