"""An event store on a database: one thread that writes (`writer`), and a few that read.

Leaves the statements to `sql_changes` and `sql_reads`, and what is particular to a database to a
`Database`.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from raymeta.errors import StoreError
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
from raymeta.serve.user_events.database import Connection, Database
from raymeta.serve.user_events.record_cache import RecordCache
from raymeta.serve.user_events.sql_rows import Session
from raymeta.serve.user_events.writer import Writer

ResultT = TypeVar("ResultT")


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
        self._records = RecordCache()  # used in the writer's thread alone
        self._writer = Writer(database, begun=self._records.begin)
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._idle.put(database.connect())
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

    async def append_and_read(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
        ahead: Callable[[UserRecord], None] | None = None,
    ) -> tuple[AppendResult, UserRecord]:
        request = sql_changes.Append(tenant, user_id, tuple(events), received_ms, key)

        def apply(session: Session) -> tuple[AppendResult, UserRecord]:
            found = sql_changes.append_and_read(session, request, self._records, **self._terms())
            self._records.note((tenant, user_id), found[1])
            return found

        def remember(found: tuple[AppendResult, UserRecord]) -> None:
            self._records.put((tenant, user_id), found[1], now_ms=self._now_ms())

        tell = None if ahead is None else lambda found: ahead(found[1])
        return await self._change(tenant, user_id, apply, ahead=tell, committed=remember)

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
            committed=lambda _: self._records.drop((tenant, user_id)),
        )

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        return await self._change(
            tenant, "", lambda session: sql_changes.put_items(session, tenant, items)
        )

    async def sweep(self) -> int:
        return await self._change(
            "",
            "",
            lambda session: sql_changes.sweep(session, **self._terms()),
            committed=lambda _: self._records.drop_old(self._now_ms()),
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
        self._writer.close()
        self._readers.shutdown()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _terms(self) -> dict[str, Any]:
        return {"retention": self._retention, "now_ms": self._now_ms()}

    async def _change(
        self,
        tenant: str,
        user_id: str,
        apply: Callable[[Session], ResultT],
        *,
        ahead: Callable[[ResultT], None] | None = None,
        committed: Callable[[ResultT], None] | None = None,
    ) -> ResultT:
        answer = self._writer.submit((tenant, user_id), apply, ahead=ahead, committed=committed)
        return await self._in_time(answer)

    # --- reading, in the readers' threads

    async def _read(self, work: Callable[[Session], ResultT]) -> ResultT:
        with self._closing:
            if self._closed:
                raise StoreError("The event store is closed.", remedy="Open a new one.")
            answer = self._readers.submit(self._run_read, work)
        return await self._in_time(asyncio.wrap_future(answer))

    async def _in_time(self, answer: asyncio.Future[ResultT]) -> ResultT:
        limit_s = self._database.answer_timeout_s
        try:
            return await asyncio.wait_for(answer, limit_s)
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
