"""The pages at `/`, `/ops` and `/docs`, and what the first asks beside the API: a shop to try the
recommender with, and what its operator sees.

Plain modules and one style sheet, from this package; the page loads nothing from anywhere else,
and its content security policy says so. Its own data routes take a key like any other.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response

from raymeta.config.serving import DEFAULT
from raymeta.errors import NotServedError
from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes.access import needs
from raymeta.serve.schemas.base import Id, MaybeName, MaybeText, Name, Text
from raymeta.serve.schemas.page import Households, ItemCard, Shelf, ShopFacts
from raymeta.serve.service import Service
from raymeta.serve.storefront import Storefront, Storefronts

_PAGES = {"index.html": "/", "ops.html": "/ops", "docs.html": "/docs"}
MAX_SHELF = 96
MAX_CARDS = 100

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_routes(app: FastAPI, service: Service) -> None:
    """The page's files, which need no key, and its data, which does."""
    for path, respond in _static_files().items():
        app.add_api_route(path, respond, methods=["GET"], include_in_schema=False)
    _add_data_routes(app, service)


def _add_data_routes(app: FastAPI, service: Service) -> None:
    reader = Depends(needs(service, Scope.READ))
    storefronts = Storefronts()

    def storefront(
        caller: Annotated[Caller, reader], tenant: Name = DEFAULT, variant: MaybeName = None
    ) -> Storefront:
        models = service.models.tenant(caller.tenant(tenant))
        return storefronts.of(tenant, models, variant)

    asked = Annotated[Storefront, Depends(storefront)]

    @app.get("/playground/shop", include_in_schema=False)
    def shop(front: asked) -> ShopFacts:
        artifact = front.recommender.artifact
        households = service.households
        return ShopFacts(
            num_items=len(front),
            categories=front.categories,
            adapts_to=[artifact.event_types[kind] for kind in artifact.view.event_types],
            can_replay=households is not None
            and households.model_version == artifact.model_version,
        )

    @app.get("/playground/items", include_in_schema=False)
    def items(
        front: asked,
        category: MaybeText = None,
        words: Text = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        n: Annotated[int, Query(ge=1, le=MAX_SHELF)] = 24,
    ) -> Shelf:
        return front.shelf(category=category, words=words, offset=offset, n=n)

    @app.get("/playground/cards", include_in_schema=False)
    def cards(
        front: asked, item_id: Annotated[list[Id], Query(max_length=MAX_CARDS)]
    ) -> list[ItemCard]:
        return front.cards(item_id)

    @app.get("/playground/households", include_in_schema=False)
    async def households(caller: Annotated[Caller, reader], tenant: Name = DEFAULT) -> Households:
        caller.tenant(tenant)
        if service.households is None:
            raise NotServedError(
                "The service has no households to replay.",
                remedy="Start it with: raymeta serve ARTIFACT --playground DATA_DIR",
            )
        return service.households


def _static_files() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """Path -> what answers it: the pages, and their modules and styles under `/page/`."""
    folder = files("raymeta.serve") / "page"
    found = {}
    for file in folder.iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in _MEDIA_TYPES:
            path = _PAGES.get(file.name, f"/page/{file.name}")
            found[path] = _answering(file.read_bytes(), _MEDIA_TYPES[ending])
    return found


def _answering(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:  # noqa: ARG001
        return Response(content, media_type=media_type, headers=_HEADERS)

    return respond
