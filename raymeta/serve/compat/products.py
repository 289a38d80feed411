"""The one table of products whose shapes are spoken."""

from collections.abc import Callable

from fastapi import FastAPI

from raymeta.config.serving import CompatConfig
from raymeta.serve.compat import gorse, metarank, personalize
from raymeta.serve.compat.base import Compat
from raymeta.serve.service import Service

ROUTES_OF: dict[str, Callable[[FastAPI, Compat], None]] = {
    "gorse": gorse.add_routes,
    "metarank": metarank.add_routes,
    "personalize": personalize.add_routes,
}

PUBLIC_PATHS = gorse.PUBLIC_PATHS | metarank.PUBLIC_PATHS
"""What needs no key, where the product is spoken: it tells that the service answers."""


def add_routes(app: FastAPI, service: Service, config: CompatConfig) -> None:
    """The routes of the products that the settings name."""
    for product in config.products:
        ROUTES_OF[product](app, Compat(service, config))
