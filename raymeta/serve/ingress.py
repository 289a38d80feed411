"""The HTTP face of a service: an ASGI application that needs no Ray.

Leaves routes to `routes`, errors to `problems`, and what surrounds a request to `envelope`.
"""

from collections import Counter
from typing import Any, get_origin

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi

from raymeta.config.serving import CompatConfig
from raymeta.errors import DataError
from raymeta.serve.compat import products
from raymeta.serve.envelope import Envelope
from raymeta.serve.problems import add_handlers
from raymeta.serve.routes import events, items, online, operations, page, recommend, users
from raymeta.serve.routes.access import SECURITY_SCHEMES
from raymeta.serve.schemas.operations import Problem
from raymeta.serve.service import Service


def create_app(
    service: Service, *, request_id_header: bool = True, compat: CompatConfig | None = None
) -> FastAPI:
    """The application around a service.

    Args:
        service: what the routes call.
        request_id_header: whether answers get an `X-Request-ID`; Ray Serve adds its own.
        compat: which other products' requests are understood; none if not given.
    """
    app = FastAPI(
        title="raymeta",
        description="Events in, recommendations adapted to them out.",
        version="1",
        # theirs load scripts from another host; ours is among `page`
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(_each_once)],
    )
    for part in (events, recommend, users, items, operations, online, page):
        part.add_routes(app, service)
    products.add_routes(app, service, compat or CompatConfig())
    add_handlers(app, service.meter)
    app.add_middleware(
        Envelope,
        max_body_bytes=service.limits.max_body_bytes,
        deadline_s=service.limits.deadline_s,
        request_id_header=request_id_header,
        meter=service.meter,
    )
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    return app


async def _each_once(request: Request) -> None:
    """Refuses a query parameter that is given twice where one is meant: which of them would count
    is anybody's guess."""
    if b"&" not in request.scope["query_string"]:
        return
    given = Counter(name for name, _ in request.query_params.multi_items())
    declared = request.scope["route"].dependant.query_params
    many = {p.alias for p in declared if get_origin(p.field_info.annotation) is list}
    for name, number in given.items():
        if number > 1 and name not in many:
            raise DataError(
                f"The query parameter {name!r} is given {number} times.", remedy="Give it once."
            )


def _description(app: FastAPI) -> dict[str, Any]:
    """The routes as OpenAPI, with the key schemes and the one form of an error."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SECURITY_SCHEMES
        described = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update(described.pop("$defs", {}))
        components["schemas"][Problem.__name__] = described
        app.openapi_schema = schema
    return app.openapi_schema
