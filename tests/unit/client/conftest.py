"""The client's tests ask the service of the serve tests."""

from tests.unit.serve.conftest import (  # noqa: F401
    artifact,
    clock,
    executor,
    make_service,
    maker,
    service,
    store,
)
