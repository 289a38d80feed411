"""Real servers for the contracts that need one."""

from collections.abc import Iterator

import pytest

from tests.helpers.servers import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, started when a test first asks for one."""
    with Servers() as started:
        yield started
