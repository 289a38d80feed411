"""Real Redis and PostgreSQL servers for tests: on 127.0.0.1, own ports, own folders.

They are Debian's `redis-server` and `postgresql`; where one is not installed, the test is skipped
and says so.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

START_TIMEOUT_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """One server process; `kill` and `start` again keep its folder and port.

    `stop_signal` ends it at once, since its folder goes with it. It is one that the server handles:
    a shell's background job has others ignored, and hands that on.
    """

    stop_signal: signal.Signals

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]: ...

    def start_options(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, **self.start_options()
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    @abstractmethod
    def answers(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL: nothing is flushed that was not."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(self.stop_signal)

    def freeze(self) -> None:
        """It keeps its connections, and does not answer."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children(recursive=True)):
            process.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(30)
            self._process = None


class RedisServer(Server):
    """With the append-only file flushed at each write."""

    stop_signal = signal.SIGTERM

    def command(self) -> Sequence[str]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [_found("redis-server", []), *words]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(b"PING\r\n")
            return s.recv(16).startswith(b"+PONG")
        return False

    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def open(self, name: str, **options: Any) -> Any:
        from raymeta.serve.user_events.redis import RedisEventStore

        return RedisEventStore(self.url(), prefix=name, **options)


class PostgresServer(Server):
    """A cluster of its own, made on the first start."""

    stop_signal = signal.SIGQUIT  # what its manual calls immediate

    def command(self) -> Sequence[str]:
        self._make_cluster()
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": "40",
            "recovery_init_sync_method": "syncfs",  # one call instead of one a file
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._tool("postgres"), "-D", str(self.folder / "data"), *words]

    def start_options(self) -> dict[str, Any]:
        # the server refuses to run as root
        return {"user": _unprivileged()} if os.getuid() == 0 else {}

    def answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            psycopg.connect(self.url(), connect_timeout=2).close()
            return True
        return False

    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def open(self, name: str, **options: Any) -> Any:
        from raymeta.serve.user_events.postgres import open_postgres

        schema = "".join(letter if letter.isalnum() else "_" for letter in name.lower())[-40:]
        return open_postgres(self.url(), schema=f"t_{schema}", **options)

    def _make_cluster(self) -> None:
        if (self.folder / "data").exists():
            return
        options = self.start_options()
        if options:
            shutil.chown(self.folder, options["user"])
        words = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-U", "postgres"]
        subprocess.run(
            [self._tool("initdb"), "-D", str(self.folder / "data"), *words],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **options,
        )

    @staticmethod
    def _tool(name: str) -> str:
        return _found(name, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))


class Servers:
    """The servers of one test run, each started when it is first asked for."""

    def __init__(self) -> None:
        self._started: dict[str, Any] = {}

    def redis(self) -> RedisServer:
        pytest.importorskip("redis", reason="pip install 'raymeta[redis]'")
        return self._server("redis", RedisServer)

    def postgres(self) -> PostgresServer:
        pytest.importorskip("psycopg", reason="pip install 'raymeta[postgres]'")
        return self._server("postgres", PostgresServer)

    def _server(self, name: str, make: Callable[[Path], Any]) -> Any:
        if name not in self._started:
            # not below pytest's folder, which only its owner may enter
            folder = Path(tempfile.mkdtemp(prefix=f"raymeta-{name}-"))
            server = make(folder)
            try:
                server.start()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._started[name] = server
        return self._started[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._started.values():
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)


def _found(program: str, places: Sequence[Path]) -> str:
    path = shutil.which(program) or (str(places[-1]) if places else None)
    if path is None:
        pytest.skip(f"{program} is not installed (apt-get install redis-server postgresql)")
    return path


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("There is no account to run PostgreSQL as.")
