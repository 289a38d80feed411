"""Reads of a store that may be slow or down: bounded in time, and given up at once while it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from raymeta.errors import StoreError

FAILURES_TO_OPEN = 3
OPEN_S = 1.0
"""While the store is down, one read a second finds out whether it is back; no other waits."""

ResultT = TypeVar("ResultT")


class StoreGuard:
    """Runs reads of a store.

    After `FAILURES_TO_OPEN` failures in a row reads fail at once, but for one in `OPEN_S`.

    Args:
        timeout_s: how long a read may take.
        clock: seconds, monotonic.
    """

    def __init__(self, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._failures = 0
        self._next_try = 0.0

    async def read(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """The result of a read.

        Raises:
            StoreError: it failed, took too long, or was not tried.
        """
        now = self._clock()
        if self._failures >= FAILURES_TO_OPEN:
            if now < self._next_try:
                raise StoreError(
                    "The event store does not answer.", remedy="Send the request again."
                )
            self._next_try = now + OPEN_S
        try:
            result = await asyncio.wait_for(work(), self._timeout_s)
        except TimeoutError:
            self._failed()
            raise StoreError(
                f"The event store did not answer within {self._timeout_s:g} s.",
                remedy="Send the request again.",
            ) from None
        except StoreError:
            self._failed()
            raise
        self._failures = 0
        return result

    def _failed(self) -> None:
        self._failures += 1
        if self._failures == FAILURES_TO_OPEN:
            self._next_try = self._clock() + OPEN_S
