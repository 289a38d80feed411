"""The stores that promises are asked of, and real servers for those that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymeta.serve.user_events.base import EventStore
from tests.helpers.clocks import Clock
from tests.helpers.event_stores import STORES, open_store
from tests.helpers.servers import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, started when a test first asks for one."""
    with Servers() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock(10**12)


@pytest.fixture(params=STORES)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, servers: Servers
) -> Iterator[EventStore]:
    opened = open_store(request.param, tmp_path, clock, servers)
    yield opened
    opened.close()
