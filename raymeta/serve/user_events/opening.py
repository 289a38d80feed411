"""The store of a configuration, opened: the one table from its kinds to stores."""

import os
from typing import Any

from raymeta.config.serving import (
    MemoryStoreConfig,
    PostgresStoreConfig,
    RedisStoreConfig,
    RetentionConfig,
    SqliteStoreConfig,
    StoreConfig,
)
from raymeta.errors import ConfigError, StoreError
from raymeta.serve.user_events.base import DAY_MS, EventStore, Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.serve.user_events.postgres import open_postgres
from raymeta.serve.user_events.redis import RedisEventStore
from raymeta.serve.user_events.sqlite import open_sqlite

REDIS_URL = "RAYMETA_REDIS_URL"
POSTGRES_URL = "RAYMETA_POSTGRES_URL"


def open_store(config: StoreConfig, retention: RetentionConfig, *, num_nodes: int) -> EventStore:
    """Opens a store.

    Args:
        config: which, and where.
        retention: what bounds it.
        num_nodes: machines that may have replicas.

    Raises:
        StoreError: it cannot be opened, or is an embedded one on a cluster of several machines.
        ConfigError: its client package or its address is missing.
    """
    bounds: dict[str, Any] = {"retention": retention_of(retention)}
    match config:
        case MemoryStoreConfig():
            return MemoryEventStore(**bounds)
        case SqliteStoreConfig():
            if num_nodes > 1:
                # each node would have a file of its own, and users would fork in silence
                raise StoreError(
                    "The store kind 'sqlite' belongs to one machine; this cluster has "
                    f"{num_nodes}.",
                    remedy="Use the kind 'redis' or 'postgres', or a cluster of one machine.",
                )
            path = os.path.expanduser(config.path)
            return open_sqlite(path, busy_timeout_s=config.busy_timeout_s, **bounds)
        case RedisStoreConfig():
            url = _url(config.url, REDIS_URL)
            return RedisEventStore(url, prefix=config.prefix, timeout_s=config.timeout_s, **bounds)
        case PostgresStoreConfig():
            url = _url(config.url, POSTGRES_URL)
            return open_postgres(url, schema=config.db_schema, timeout_s=config.timeout_s, **bounds)


def retention_of(config: RetentionConfig) -> Retention:
    """The settings as a store has them."""
    return Retention(
        events=config.events,
        user_ttl_ms=None if config.user_days is None else config.user_days * DAY_MS,
        event_id_ttl_ms=config.event_id_days * DAY_MS,
        idempotency_ttl_ms=config.idempotency_days * DAY_MS,
    )


def _url(given: str | None, variable: str) -> str:
    url = given or os.environ.get(variable)
    if not url:
        raise ConfigError(
            f"The store has no url, and {variable} is not set for the replicas.",
            remedy="Give store.url, or set the variable where Ray starts.",
        )
    return url
