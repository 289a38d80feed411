"""`/v1/events`: what users did, in and, for training, out again."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Header, Query, Response

from raymeta.config.serving import DEFAULT
from raymeta.serve.access import Caller, Scope
from raymeta.serve.export import MEDIA_TYPE, export_page
from raymeta.serve.routes import direct
from raymeta.serve.routes.access import described, needs
from raymeta.serve.schemas.base import Name
from raymeta.serve.schemas.events import EventsRequest, EventsResponse
from raymeta.serve.service import Service

MAX_EXPORTED_USERS = 1000

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Yours, of this request: sent again with it, the request is done once and "
        "gets its first answer; another request under it is refused with 409.",
    ),
]


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of events."""
    caller_of = needs(service, Scope.WRITE)
    writer = Depends(caller_of)
    admin = Depends(needs(service, Scope.ADMIN))

    kept = {"response_model": EventsResponse, **described("events", 409, 413, 415)}

    @direct.post(app, "/v1/events", EventsRequest, caller_of, **kept)
    async def add_events(
        request: EventsRequest,
        caller: Annotated[Caller, writer],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Keeps events of one user, all or none. Answers once they are durable."""
        caller.tenant(request.tenant)
        answer, replayed = await service.writes.add_events(request, idempotency_key=idempotency_key)
        headers = {"Idempotent-Replayed": "true"} if replayed else None
        return Response(answer.model_dump_json(), headers=headers, media_type="application/json")

    exported = described("events")
    exported["responses"][200] = {
        "description": "JSON Lines; `X-Next-After` says where the next page begins.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }

    @app.get("/v1/export/events", response_class=Response, **exported)
    async def export_events(
        caller: Annotated[Caller, admin],
        tenant: Name = DEFAULT,
        after: Annotated[str, Query(max_length=256, description="The last user before.")] = "",
        users: Annotated[int, Query(ge=1, le=MAX_EXPORTED_USERS)] = 100,
    ) -> Response:
        """The retained events, as JSON Lines that `raymeta prepare files` reads, users by id."""
        caller.tenant(tenant)
        service.models.tenant(tenant)
        page = await export_page(service.store, tenant, after=after, num_users=users)
        response = Response(page.lines, media_type=MEDIA_TYPE)
        if page.next_after is not None:
            response.headers["X-Next-After"] = _header_text(page.next_after)
        return response


def _header_text(text: str) -> str:
    """Any text as a header may carry it: as it stands in a URL's query."""
    return quote(text, safe="")
