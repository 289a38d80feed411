"""The Serve application: one ingress deployment whose replicas adapt in process.

`user_config` carries which artifacts answer; changing it alone swaps them in the running
replicas. Leaves what a request does to `service`, and starting Serve to `local` or Serve's tools.
"""

import asyncio
import contextlib
import gc
import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig, RequestRouterConfig

from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.errors import RaymetaError
from raymeta.observability import logs, metrics, tracing
from raymeta.observability.metrics import Meter
from raymeta.runtime import num_alive_nodes
from raymeta.serve import last_good
from raymeta.serve.access import Keys, require_keys_on
from raymeta.serve.households import read_households
from raymeta.serve.ingress import create_app
from raymeta.serve.metric_export import RayMetrics, exported
from raymeta.serve.models import Maker, TenantModels, load_models
from raymeta.serve.problems import RETRY_AFTER_S
from raymeta.serve.service import Service
from raymeta.serve.user_events.opening import open_store

logger = logging.getLogger(__name__)

DEPLOYMENT_NAME = "Recommender"
MAINTENANCE_S = 600.0
YOUNG_OBJECTS = (20_000, 20, 20)
"""When garbage is looked for, in new objects and in rounds: at Python's own 700 and 10 the events
kept in memory were gone through so often that it took a tenth of the processor."""
SIZES_S = 10.0

_HASHING_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


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
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        user_config=config.model_table() if config.tenants else None,
        ray_actor_options={"num_cpus": replicas.num_cpus},
        request_router_config=_router(),
        graceful_shutdown_wait_loop_s=0.2,  # requests last milliseconds
        graceful_shutdown_timeout_s=10.0,
        max_constructor_retry_count=2,  # what is wrong with an artifact stays wrong
    )(serve.ingress()(RecommenderReplica))
    return deployment.bind(config.fixed_settings())


class RecommenderReplica:
    """One process behind the endpoint: its store connection, its models, its state cache."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = config = ServingConfig.parse(settings, source="args")
        logs.configure(logs.Level(config.log.level), logs.Format(config.log.form))
        if config.tracing is not None:
            tracing.start(**config.tracing.model_dump())
        keys = Keys() if config.access is None else Keys.read(config.access.keys_file)
        require_keys_on(_listening_host(), has_keys=bool(keys))
        threads = config.replicas.torch_threads
        torch.set_num_threads(threads)
        executor = ThreadPoolExecutor(
            1,
            thread_name_prefix="adapt",
            initializer=torch.set_num_threads,  # OpenMP counts per calling thread
            initargs=(threads,),
        )
        self._maker = Maker(executor, max_batch=config.max_batch_users, meter=Meter(RayMetrics()))
        self._store = open_store(config.store, config.retention, num_nodes=num_alive_nodes())
        self._service = Service(
            self._store,
            self._maker,
            keys=keys,
            limits=config.limits,
            retention=config.retention,
            state_cache_bytes=config.state_cache_bytes,
            rate_share=1.0 / config.replicas.num_replicas,
            households=read_households(config.households_file),
            exported=exported,
        )
        self._has_models = False
        self._maintenance: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Loads the artifacts of a `ModelTable`, then answers with them.

        Where they cannot be loaded, a replica that already answers keeps its models, and one that
        starts takes those that answered last: to raise would take it down, and with it the
        service. `/readyz` says which models answer.
        """
        place = last_good.place_of(self._config)
        try:
            table = ModelTable.parse(user_config, source="user_config")
            models = await self._load(table)
        except RaymetaError as error:
            if self._has_models:
                logger.error("The models stay as they were: %s", error)
                return
            table_before = last_good.noted(place)
            if table_before is None:
                raise
            logger.error("The models that answered last answer on: %s", error)
            models = await self._load(table_before)
        else:
            last_good.note(table, place)
        self._service.use(models)
        self._has_models = True
        _set_apart_what_stays()
        if self._maintenance is None:
            self._maintenance = asyncio.create_task(self._maintain())

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service, request_id_header=False, compat=self._config.compat)

    def __del__(self) -> None:
        if store := getattr(self, "_store", None):
            store.close()

    async def _load(self, table: ModelTable) -> dict[str, TenantModels]:
        return await asyncio.to_thread(load_models, table, config=self._config, maker=self._maker)

    async def _maintain(self) -> None:
        for turn in itertools.count(1):
            await asyncio.sleep(SIZES_S)
            self._service.tell_sizes()
            if self._config.store.kind == "sqlite":
                self._maker.meter.set(metrics.STORE_BYTES, value=_bytes_of(self._config.store.path))
            if turn % round(MAINTENANCE_S / SIZES_S) == 0:
                # a store that is down now is swept the next time
                with contextlib.suppress(RaymetaError):
                    await self._service.maintain()


def _set_apart_what_stays() -> None:
    """Has the garbage collector pass over what will live as long as these models.

    The objects of torch, Ray and the models would otherwise be gone through every few thousand
    requests, which kept all of them waiting for 130 ms. What was set apart before is looked at
    here, so that models that were replaced are freed.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*YOUNG_OBJECTS)


def _bytes_of(database: str) -> int:
    """Of an SQLite file and what is not yet written back into it."""
    files = Path(database), Path(f"{database}-wal")
    return sum(file.stat().st_size for file in files if file.exists())


def _router() -> RequestRouterConfig:
    """Sends a user's requests to one replica, by the header `x-session-id`: cache affinity, no
    more. HAProxy hashes that header itself and refuses another router; Serve's own proxy asks one.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        return RequestRouterConfig()
    return RequestRouterConfig(
        request_router_class=_HASHING_ROUTER,
        request_router_kwargs={"num_virtual_nodes": 100, "num_fallback_replicas": 2},
    )


def _listening_host() -> str:
    """The address that Serve listens on, where it can be told; this machine's own otherwise."""
    from ray.serve.context import _get_global_client

    return str(_get_global_client().http_config.host)
