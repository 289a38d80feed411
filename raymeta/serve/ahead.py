"""Work that is begun before what it is made of is durable, and thrown away if it never is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from raymeta.serve.recommender import Ranking
from raymeta.serve.user_events.base import UserRecord


class Ahead:
    """A list that is made of a record before that is durable.

    Args:
        begin: makes the list; None where it cannot be made of this record yet.
    """

    def __init__(self, begin: Callable[[UserRecord], Coroutine[Any, Any, Ranking] | None]) -> None:
        self._begin = begin
        self._record: UserRecord | None = None
        self._task: asyncio.Task[Ranking] | None = None

    def __call__(self, record: UserRecord) -> None:
        self.drop()
        self._record = record
        if (work := self._begin(record)) is not None:
            self._task = asyncio.ensure_future(work)

    def of(self, record: UserRecord) -> "asyncio.Task[Ranking] | None":
        """The list, where it was made of this very record."""
        return self._task if record is self._record else None

    def drop(self) -> None:
        """Throws away what was begun."""
        if self._task is not None and not self._task.cancel():
            self._task.exception()  # looked at, so that nobody is warned of it
