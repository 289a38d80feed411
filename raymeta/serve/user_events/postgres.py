"""Events in PostgreSQL: shared by the replicas of any number of machines.

An acknowledged event was committed with the server's `synchronous_commit`, so what it outlives is
the server's to say (`durable` reads it). Rows live in a schema of their own. Leaves threads and
transactions to `engine`, statements to `sql_*`.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raymeta.errors import ConfigError, RaymetaError, StoreError
from raymeta.serve.user_events.base import SCHEMA_VERSION, Retention
from raymeta.serve.user_events.engine import SqlEventStore
from raymeta.serve.user_events.sql_schema import PLACE_ADDED, Dialect, schema_statements

if TYPE_CHECKING:
    import psycopg

_DIALECT = Dialect(
    key="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    integer="BIGINT",
    real="DOUBLE PRECISION",
    text='TEXT COLLATE "C"',  # ordered by code points, as everywhere else
    blob="BYTEA",
)
_LOCK_ID = 0x7261796D  # of the advisory lock under which the schema is made


def open_postgres(
    url: str,
    *,
    retention: Retention,
    schema: str = "raymeta",
    timeout_s: float = 5.0,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> SqlEventStore:
    """An `EventStore` in a PostgreSQL database.

    Args:
        url: as libpq takes it, e.g. `postgresql://raymeta@db:5432/shop`; the password is better
            in `PGPASSWORD` or a `.pgpass` file.
        retention: what bounds the store.
        schema: holds the tables; made where missing.
        timeout_s: how long connecting and each statement may take.
        now_ms: the clock that expiry is measured by.

    Raises:
        StoreError: the server cannot be reached, or holds a newer schema.
        ConfigError: the client package is not installed.
    """
    database = PostgresDatabase(url, schema=schema, timeout_s=timeout_s)
    return SqlEventStore(database, retention=retention, now_ms=now_ms)


class PostgresDatabase:
    """The server, for `engine`."""

    num_readers = 4

    def __init__(self, url: str, *, schema: str, timeout_s: float) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigError(
                "The store kind 'postgres' needs the package psycopg, which is not installed.",
                remedy="Install it with: pip install 'raymeta[postgres]'",
            ) from None
        self._psycopg = psycopg
        self._url = url
        self._schema = schema
        self._timeout_s = timeout_s
        # the server bounds a statement itself, unless it hangs as a whole
        self.answer_timeout_s = 1.5 * timeout_s
        self.durable = False

    def connect(self) -> "PostgresConnection":
        timeout_ms = max(1, round(self._timeout_s * 1000))
        options = (
            f"-c search_path={self._schema} -c statement_timeout={timeout_ms} "
            f"-c lock_timeout={timeout_ms} -c default_transaction_isolation=read\\ committed"
        )
        try:
            raw = self._psycopg.connect(
                self._url,
                options=options,
                autocommit=True,
                connect_timeout=max(2, round(self._timeout_s)),
                # a server that is gone without a word is noticed by the kernel
                tcp_user_timeout=timeout_ms,
                client_encoding="UTF8",
            )
        except self._psycopg.Error as error:
            raise self.explain(error) from error
        try:
            self._require_schema(raw)
            commit = raw.execute("SHOW synchronous_commit").fetchone()
            fsync = raw.execute("SHOW fsync").fetchone()
        except BaseException as error:
            raw.close()
            raise self.explain(error) from error
        self.durable = commit != ("off",) and fsync == ("on",)
        return PostgresConnection(raw)

    def breaks_connection(self, error: BaseException) -> bool:
        broken = (self._psycopg.OperationalError, self._psycopg.InterfaceError)
        return isinstance(error, broken) and not self._is_timeout(error)

    def explain(self, error: BaseException) -> RaymetaError:
        if isinstance(error, RaymetaError):
            return error
        if self._is_timeout(error):
            return StoreError(
                f"The event store did not answer within {self._timeout_s:g} s.",
                remedy="Send the request again; events with an event_id are never counted twice.",
            )
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return StoreError(
            f"The event store failed: {first}.",
            remedy="Send the request again once the database answers.",
        )

    def _is_timeout(self, error: BaseException) -> bool:
        errors = self._psycopg.errors
        return isinstance(error, (errors.QueryCanceled, errors.LockNotAvailable))

    def _require_schema(self, raw: "psycopg.Connection[Any]") -> None:
        with raw.transaction():
            # several replicas start at once, and CREATE ... IF NOT EXISTS races with itself
            raw.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_ID,))
            raw.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            raw.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
            row = raw.execute("SELECT version FROM schema_version").fetchone()
            if row is None:
                for statement in schema_statements(_DIALECT):
                    raw.execute(statement)
                raw.execute("INSERT INTO schema_version VALUES (%s)", (SCHEMA_VERSION,))
            elif row[0] == 2:
                raw.execute(PLACE_ADDED)
                raw.execute("UPDATE schema_version SET version = %s", (SCHEMA_VERSION,))
            elif row[0] != SCHEMA_VERSION:
                raise StoreError(
                    f"The event store's schema {self._schema!r} has version {row[0]}; this "
                    f"raymeta reads version {SCHEMA_VERSION} and 2.",
                    remedy="Use the raymeta that wrote it, or name another schema.",
                )


class PostgresConnection:
    """One connection and its transactions."""

    def __init__(self, raw: "psycopg.Connection[Any]") -> None:
        self.raw = raw

    @contextlib.contextmanager
    def writing(self) -> Iterator["PostgresConnection"]:
        with self.raw.transaction():
            yield self

    @contextlib.contextmanager
    def reading(self) -> Iterator["PostgresConnection"]:
        with self.raw.transaction():
            # the statements of one reading must see one moment
            self.raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield self

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.raw.execute(_with_percent(statement), values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self.raw.execute(_with_percent(statement), values).rowcount

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:  # one round trip instead of a pipeline's set-up
            self.raw.execute(_with_percent(statement), rows[0])
            return
        with self.raw.cursor() as cursor:
            cursor.executemany(_with_percent(statement), rows)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.raw.close()


@functools.lru_cache(maxsize=256)
def _with_percent(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()
