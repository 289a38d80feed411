"""What an event store must know of a database: the part that differs between them."""

from contextlib import AbstractContextManager
from typing import Protocol

from raymeta.errors import RaymetaError
from raymeta.serve.user_events.sql_rows import Session


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
