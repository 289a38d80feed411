"""An event store on a database: one thread that writes, a few that read, and group commit.

A commit costs one flush of the disk, so changes that arrive while one is flushing are taken
together into the next transaction: a lone change never waits for company. Leaves the statements to
`sql_changes` and `sql_reads`, and what is particular to a database to a `Database`.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from raymeta.errors import RaymetaError, StoreError
from raymeta.serve.user_events import sql_changes, sql_reads
from raymeta.serve.user_events.base import (
    AppendResult,
    Erasure,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    Retention,
    StoredEvent,
    UserRecord,
    UserVersion,
)
from raymeta.serve.user_events.sql_rows import Session

MAX_GROUP = 256
"""Changes in one transaction at most: keeps the others' wait for the lock short."""

ResultT = TypeVar("ResultT")


class Connection(Protocol):
    """One connection, used by one thread at a time."""

    def writing(self) -> AbstractContextManager[Session]:
        """A transaction that is durable when the block has ended."""
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """A transaction that sees one moment."""
        ...

    def close(self) -> None: ...


class Database(Protocol):
    """What the engine must know of a database."""

    @property
    def durable(self) -> bool:
        """Whether what was committed outlives a crash."""
        ...

    @property
    def num_readers(self) -> int:
        """Threads that read at once."""
        ...

    @property
    def answer_timeout_s(self) -> float | None:
        """How long a caller waits for work that was begun; None where the database bounds it."""
        ...

    def connect(self) -> Connection:
        """Opens a connection, and makes or migrates the schema where that is needed."""
        ...

    def breaks_connection(self, error: BaseException) -> bool:
        """Whether the connection that gave this error is of no further use."""
        ...

    def explain(self, error: BaseException) -> RaymetaError:
        """The error as a caller may see it."""
        ...


@dataclass(frozen=True, slots=True)
class _Change:
    order: tuple[str, str]
    apply: Callable[[Session], Any]
    answer: Future[Any]


class SqlEventStore:
    """An `EventStore` on a `Database`.

    Args:
        database: where the rows are.
        retention: what bounds the store.
        now_ms: the clock that expiry is measured by.

    Raises:
        StoreError: the database cannot be opened, or has a schema that this release does not read.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._retention = retention
        self._now_ms = now_ms
        self._closed = False
        self._closing = threading.Lock()
        self._writing: Connection | None = database.connect()
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._idle.put(database.connect())
        self._pending: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="event-writer", daemon=True)
        self._writer.start()
        self._readers = ThreadPoolExecutor(database.num_readers, thread_name_prefix="event-reader")

    @property
    def durable(self) -> bool:
        return self._database.durable

    async def append(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
    ) -> AppendResult:
        request = sql_changes.Append(tenant, user_id, tuple(events), received_ms, key)
        return await self._change(
            tenant, user_id, lambda session: sql_changes.append(session, request, **self._terms())
        )

    async def put_features(
        self, tenant: str, user_id: str, features: Mapping[str, Any], *, replace: bool
    ) -> int:
        return await self._change(
            tenant,
            user_id,
            lambda session: sql_changes.put_features(
                session, tenant, user_id, features, replace=replace, **self._terms()
            ),
        )

    async def log_ranking(self, tenant: str, user_id: str, ranking: LoggedRanking) -> None:
        await self._change(
            tenant,
            user_id,
            lambda session: sql_changes.log_ranking(
                session, tenant, user_id, ranking, **self._terms()
            ),
        )

    async def erase(self, tenant: str, user_id: str, *, at_ms: int) -> Erasure:
        return await self._change(
            tenant,
            user_id,
            lambda session: sql_changes.erase(
                session, tenant, user_id, at_ms=at_ms, **self._terms()
            ),
        )

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        return await self._change(
            tenant, "", lambda session: sql_changes.put_items(session, tenant, items)
        )

    async def sweep(self) -> int:
        return await self._change(
            "", "", lambda session: sql_changes.sweep(session, **self._terms())
        )

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        return await self._read(lambda s: sql_reads.read(s, tenant, user_id, **self._terms()))

    async def version(self, tenant: str, user_id: str) -> UserVersion:
        return await self._read(lambda s: sql_reads.version(s, tenant, user_id, **self._terms()))

    async def rankings(self, tenant: str, user_id: str) -> tuple[LoggedRanking, ...]:
        return await self._read(lambda s: sql_reads.rankings(s, tenant, user_id, **self._terms()))

    async def user_ids(self, tenant: str, *, after: str, limit: int) -> list[str]:
        return await self._read(
            lambda s: sql_reads.user_ids(s, tenant, after=after, limit=limit, **self._terms())
        )

    async def item_changes(self, tenant: str, *, after: int) -> list[ItemChange]:
        return await self._read(lambda s: sql_reads.item_changes(s, tenant, after=after))

    async def check(self) -> None:
        await self._read(lambda s: s.all("SELECT 1 FROM users LIMIT 1"))

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._pending.put(None)
        self._writer.join()
        self._readers.shutdown()
        if self._writing is not None:
            self._writing.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _terms(self) -> dict[str, Any]:
        return {"retention": self._retention, "now_ms": self._now_ms()}

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("The event store is closed.", remedy="Open a new one.")

    # --- changes, in the writer's thread

    async def _change(
        self, tenant: str, user_id: str, apply: Callable[[Session], ResultT]
    ) -> ResultT:
        answer: Future[ResultT] = Future()
        with self._closing:
            self._require_open()
            self._pending.put(_Change((tenant, user_id), apply, answer))
        return await self._in_time(answer)

    def _write(self) -> None:
        while (first := self._pending.get()) is not None:
            group = [first]
            with contextlib.suppress(queue.Empty):
                while len(group) < MAX_GROUP:
                    change = self._pending.get_nowait()
                    if change is None:
                        self._pending.put(None)
                        break
                    group.append(change)
            # by user (stable, so a user's changes stay in order): processes that lock the rows of
            # several users must lock them in one order, or each waits for the other
            group.sort(key=lambda change: change.order)
            self._commit([c for c in group if c.answer.set_running_or_notify_cancel()])

    def _commit(self, group: Sequence[_Change]) -> None:
        if not group:
            return
        try:
            with self._writer_connection().writing() as session:
                results = [change.apply(session) for change in group]
        except Exception as error:
            self._drop_writer_if_broken(error)
            if len(group) > 1:  # one that cannot be stored must not fail its neighbours
                for change in group:
                    self._commit([change])
            else:
                group[0].answer.set_exception(self._database.explain(error))
        else:
            for change, result in zip(group, results, strict=True):
                change.answer.set_result(result)

    def _writer_connection(self) -> Connection:
        if self._writing is None:
            self._writing = self._database.connect()
        return self._writing

    def _drop_writer_if_broken(self, error: Exception) -> None:
        if self._writing is not None and self._database.breaks_connection(error):
            self._writing.close()
            self._writing = None

    # --- reading, in the readers' threads

    async def _read(self, work: Callable[[Session], ResultT]) -> ResultT:
        with self._closing:
            self._require_open()
            answer = self._readers.submit(self._run_read, work)
        return await self._in_time(answer)

    async def _in_time(self, answer: Future[ResultT]) -> ResultT:
        limit_s = self._database.answer_timeout_s
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), limit_s)
        except TimeoutError:
            raise StoreError(
                f"The event store did not answer within {limit_s:g} s.",
                remedy="Send the request again; events with an event_id are never counted twice.",
            ) from None

    def _run_read(self, work: Callable[[Session], ResultT]) -> ResultT:
        try:
            with self._idle_connection() as connection, connection.reading() as session:
                return work(session)
        except Exception as error:
            raise self._database.explain(error) from error

    @contextlib.contextmanager
    def _idle_connection(self) -> Iterator[Connection]:
        """One that no other thread uses, opened where there is none; back among them unless it
        broke."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._database.connect()
        try:
            yield connection
        except Exception as error:
            if self._database.breaks_connection(error):
                connection.close()
            else:
                self._idle.put(connection)
            raise
        self._idle.put(connection)
