"""The one thread that writes, and group commit.

A commit costs one flush of the disk, so changes that come due in one turn of an event loop, or
while another commit is flushing, are taken together into the next transaction: a lone change never
waits for company. Leaves what a change does to its caller.
"""

import asyncio
import contextlib
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from raymeta.errors import StoreError
from raymeta.serve.user_events.database import Connection, Database
from raymeta.serve.user_events.sql_rows import Session

MAX_GROUP = 256
"""Changes from which on a transaction takes no more: keeps the others' wait for the lock short."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Change:
    """One change that waits for the writer, and who waits for it."""

    order: tuple[str, str]
    apply: Callable[[Session], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    ahead: Callable[[Any], None] | None = None
    committed: Callable[[Any], None] | None = None

    def succeed(self, result: Any) -> None:
        if not self.answer.done():  # nobody waits any more
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Writer:
    """Commits changes of any number of event loops, in one thread.

    Args:
        database: where the rows are; a connection is opened at once.
        begun: called in the writer's thread when a transaction begins.

    Raises:
        StoreError: it cannot be opened, or has a schema that this release does not read.
    """

    def __init__(self, database: Database, *, begun: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._begun = begun
        self._closed = False
        self._closing = threading.Lock()
        self._connection: Connection | None = database.connect()
        self._gathered: defaultdict[asyncio.AbstractEventLoop, list[_Change]] = defaultdict(list)
        self._pending: queue.SimpleQueue[list[_Change] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="event-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        order: tuple[str, str],
        apply: Callable[[Session], ResultT],
        *,
        ahead: Callable[[ResultT], None] | None = None,
        committed: Callable[[ResultT], None] | None = None,
    ) -> "asyncio.Future[ResultT]":
        """Queues a change; the answer comes once it is durable.

        Args:
            order: of the rows that it locks; what has the same keeps its order.
            apply: the change, within a transaction.
            ahead: called in the event loop with the result before it is durable.
            committed: called in the writer's thread with the result once it is durable.

        Raises:
            StoreError: the writer is closed.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ResultT] = loop.create_future()
        with self._closing:
            if self._closed:
                raise StoreError("The event store is closed.", remedy="Open a new one.")
            gathered = self._gathered[loop]
            if not gathered:
                loop.call_soon(self._hand_over, loop)
            gathered.append(_Change(order, apply, loop, answer, ahead, committed))
        return answer

    def close(self) -> None:
        """Finishes what was begun; safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            for loop in tuple(self._gathered):
                self._put(loop)
            self._pending.put(None)
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends a turn: to wake the writer for each change would have the two threads take the
        interpreter's lock from one another."""
        with self._closing:
            self._put(loop)

    def _put(self, loop: asyncio.AbstractEventLoop) -> None:
        if changes := self._gathered.pop(loop, None):
            self._pending.put(changes)

    def _write(self) -> None:
        while (group := self._pending.get()) is not None:
            with contextlib.suppress(queue.Empty):
                while len(group) < MAX_GROUP:
                    changes = self._pending.get_nowait()
                    if changes is None:
                        self._pending.put(None)
                        break
                    group += changes
            # by user (stable, so a user's changes stay in order): processes that lock the rows of
            # several users must lock them in one order, or each waits for the other
            group.sort(key=lambda change: change.order)
            self._commit([change for change in group if not change.answer.cancelled()])

    def _commit(self, group: Sequence[_Change]) -> None:
        if not group:
            return
        try:
            self._begun()
            with self._open_connection().writing() as session:
                results = [change.apply(session) for change in group]
                _tell(
                    (change.loop, change.ahead, result)
                    for change, result in zip(group, results, strict=True)
                    if change.ahead is not None
                )
        except Exception as error:
            self._drop_if_broken(error)
            if len(group) > 1:  # one that cannot be stored must not fail its neighbours
                for change in group:
                    self._commit([change])
            else:
                told = self._database.explain(error)
                _tell([(group[0].loop, group[0].fail, told)])
        else:
            for change, result in zip(group, results, strict=True):
                if change.committed is not None:
                    change.committed(result)
            _tell(
                (change.loop, change.succeed, result)
                for change, result in zip(group, results, strict=True)
            )

    def _open_connection(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _drop_if_broken(self, error: Exception) -> None:
        if self._connection is not None and self._database.breaks_connection(error):
            self._connection.close()
            self._connection = None


def _tell(messages: Iterable[tuple[asyncio.AbstractEventLoop, Callable[[Any], None], Any]]) -> None:
    """Calls each function with its value in its event loop; one wake-up a loop, however many."""
    by_loop = defaultdict(list)
    for loop, function, value in messages:
        by_loop[loop].append((function, value))
    for loop, calls in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that was closed: nobody waits there
            loop.call_soon_threadsafe(_call_each, calls)


def _call_each(calls: Sequence[tuple[Callable[[Any], None], Any]]) -> None:
    for function, value in calls:
        function(value)
