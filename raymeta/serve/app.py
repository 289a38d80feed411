"""The Serve application: one ingress deployment whose replicas adapt in process.

`user_config` carries which artifacts answer; changing it alone swaps them in the running
replicas. Leaves what a request does to `service`, and starting Serve to `local` or Serve's tools.
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve

from raymeta.config.serving import ModelTable, ServingConfig, StoreConfig
from raymeta.errors import RaymetaError, StoreError
from raymeta.runtime import num_alive_nodes
from raymeta.serve.ingress import create_app
from raymeta.serve.service import Service, load_models
from raymeta.serve.user_events.base import EventStore
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.serve.user_events.sqlite import SqliteEventStore

logger = logging.getLogger(__name__)

DEPLOYMENT_NAME = "Recommender"


def build_app(args: dict[str, Any]) -> serve.Application:
    """Builds the application from a `ServingConfig`, as plain values.

    Where `args` names tenants they become the deployment's `user_config`; a `user_config` under
    `deployments` in a Serve config replaces it.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    config = ServingConfig.parse(args, source="args")
    replicas = config.replicas
    deployment = serve.deployment(
        name=DEPLOYMENT_NAME,
        num_replicas=replicas.num_replicas,
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        user_config=config.model_table() if config.tenants else None,
        ray_actor_options={"num_cpus": replicas.num_cpus},
        graceful_shutdown_wait_loop_s=0.2,  # requests last milliseconds
        graceful_shutdown_timeout_s=10.0,
        max_constructor_retry_count=2,  # what is wrong with an artifact stays wrong
    )(serve.ingress()(RecommenderReplica))
    return deployment.bind(config.fixed_settings())


class RecommenderReplica:
    """One process behind the endpoint: its store connection, its models, its state cache."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = ServingConfig.parse(settings, source="args")
        threads = self._config.replicas.torch_threads
        torch.set_num_threads(threads)
        self._executor = ThreadPoolExecutor(
            1,
            thread_name_prefix="adapt",
            initializer=torch.set_num_threads,  # OpenMP counts per calling thread
            initargs=(threads,),
        )
        self._store = _open_store(self._config.store, self._config.retained_events)
        self._service = Service(
            self._store,
            durable=self._config.store.kind != "memory",
            limits=self._config.limits,
            state_cache_bytes=self._config.state_cache_bytes,
        )
        self._has_models = False

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Loads the artifacts of a `ModelTable`, then answers with them.

        A replica that already answers keeps its models where the new ones cannot be loaded: to
        raise would take it down, and with it the service. `/readyz` says which models answer.
        """
        try:
            table = ModelTable.parse(user_config, source="user_config")
            models = await asyncio.to_thread(
                load_models, table, config=self._config, executor=self._executor
            )
        except RaymetaError as error:
            if not self._has_models:
                raise
            logger.error("The models stay as they were: %s", error)
            return
        self._service.use(models)
        self._has_models = True

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(
            self._service,
            max_body_bytes=self._config.limits.max_body_bytes,
            request_id_header=False,
        )

    def __del__(self) -> None:
        if store := getattr(self, "_store", None):
            store.close()


def _open_store(config: StoreConfig, retained_events: int) -> EventStore:
    if config.kind == "memory":
        return MemoryEventStore(retained_events=retained_events)
    if (nodes := num_alive_nodes()) > 1:
        # each node would have a file of its own, and users would fork in silence
        raise StoreError(
            f"The store kind 'sqlite' belongs to one machine; this cluster has {nodes}.",
            remedy="Serve from a cluster of one machine.",
        )
    return SqliteEventStore(
        os.path.expanduser(config.path),
        retained_events=retained_events,
        busy_timeout_s=config.busy_timeout_s,
    )
