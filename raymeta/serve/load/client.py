"""Sends prepared HTTP requests and times the answers: a generator that is not what it measures.

Open loop: a request is sent at its time whether earlier ones were answered or not, and its latency
counts from that time, so that a stalled server cannot hide behind requests that were never sent
(coordinated omission). Closed loop: so many requests at a time, each after the one before, for
saturation and for lone requests. Raw sockets over one event loop, no HTTP library: each request
costs the generator tens of microseconds.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_ANSWER = 0
"""Status of a request whose connection broke or whose time ran out."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Outcomes:
    """What became of requests, in the order of their answers.

    Attributes:
        latencies_s: from the time that a request was due.
        statuses: HTTP statuses, or `NO_ANSWER`.
        wall_s: from the first request to the last answer.
        cpu_s: of this process, the generator, meanwhile.
    """

    latencies_s: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, status: int, latency_s: float) -> None:
        self.statuses.append(status)
        self.latencies_s.append(latency_s)


@dataclass(slots=True)
class _Request:
    data: bytes
    due: float
    answered: "asyncio.Future[None] | None" = None


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool
        self._transport: Any = None  # uvloop's is no asyncio.Transport
        self._buffer = bytearray()
        self.request: _Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: _Request) -> None:
        self.request = request
        self._transport.write(request.data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        if found := _LENGTH.search(head):
            if len(self._buffer) < end + 4 + int(found.group(1)):
                return
        elif _CHUNKED.search(head) and not self._buffer.endswith(b"0\r\n\r\n"):
            return
        self._buffer.clear()
        request, self.request = self.request, None
        if request is not None:
            self._pool.finish(request, int(head[9:12]))
        if _CLOSES.search(head):
            self._pool.forget(self)
            self.close()
        else:
            self._pool.release(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        request, self.request = self.request, None
        self._pool.forget(self)
        if request is not None:
            self._pool.finish(request, NO_ANSWER)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Pool:
    """Connections of one run, opened when there is need, and what has no connection yet."""

    def __init__(self, host: str, port: int, *, limit: int, timeout_s: float) -> None:
        self._address = (host, port)
        self._limit = limit
        self._timeout_s = timeout_s
        self._free: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._opening = 0
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_open = 0
        self.outcomes = Outcomes()

    def submit(self, request: _Request) -> None:
        self.num_open += 1
        if self._free:
            self._free.popleft().send(request)
            return
        self._waiting.append(request)
        self._open_if_needed()

    def release(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._free.append(connection)

    def forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        self._open_if_needed()

    def finish(self, request: _Request, status: int) -> None:
        self.num_open -= 1
        self.outcomes.add(status, time.perf_counter() - request.due)
        if request.answered is not None:
            request.answered.set_result(None)

    async def drain(self) -> None:
        """Waits for the answers that are due, then gives up the rest."""
        until = time.perf_counter() + self._timeout_s
        while self.num_open and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        while self._waiting:
            self.finish(self._waiting.popleft(), NO_ANSWER)
        for connection in tuple(self._all):
            connection.close()
        await asyncio.sleep(0)

    def _open_if_needed(self) -> None:
        if self._opening >= len(self._waiting):
            return
        if len(self._all) + self._opening < self._limit:
            self._opening += 1
            task = asyncio.ensure_future(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        except OSError:
            if self._waiting:
                self.finish(self._waiting.popleft(), NO_ANSWER)
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        self.release(connection)


async def open_loop(
    host: str,
    port: int,
    requests: Iterator[bytes],
    times_s: NDArray[np.float64],
    *,
    max_connections: int = 512,
    timeout_s: float = 30.0,
) -> Outcomes:
    """Sends a request at each time; answers that come later than `timeout_s` are given up."""
    prepared = [next(requests) for _ in times_s]
    pool = _Pool(host, port, limit=max_connections, timeout_s=timeout_s)
    # not the loop's clock: uvloop's counts whole milliseconds
    cpu, start = time.process_time(), time.perf_counter() + 0.05
    for data, at in zip(prepared, times_s.tolist(), strict=True):
        due = start + at
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        # a sleep that ends late changes nothing: the latency counts from when it was due. uvloop's
        # may end early by part of a millisecond, and then it counts from when it was sent
        pool.submit(_Request(data, min(due, time.perf_counter())))
    await pool.drain()
    return _timed(pool.outcomes, time.perf_counter() - start, cpu)


async def closed_loop(
    host: str,
    port: int,
    requests: Iterator[bytes],
    *,
    concurrency: int,
    duration_s: float,
    timeout_s: float = 30.0,
) -> Outcomes:
    """Keeps `concurrency` requests under way for a time."""
    # prepared in part: how many will be sent is not known
    pool = _Pool(host, port, limit=concurrency, timeout_s=timeout_s)
    loop = asyncio.get_running_loop()
    cpu, start = time.process_time(), time.perf_counter()

    async def worker() -> None:
        while time.perf_counter() < start + duration_s:
            answered = loop.create_future()
            pool.submit(_Request(next(requests), time.perf_counter(), answered))
            await answered

    await asyncio.wait(
        [asyncio.ensure_future(worker()) for _ in range(concurrency)],
        timeout=duration_s + timeout_s,
    )
    wall_s = time.perf_counter() - start
    await pool.drain()
    return _timed(pool.outcomes, wall_s, cpu)


def _timed(outcomes: Outcomes, wall_s: float, cpu_before_s: float) -> Outcomes:
    outcomes.wall_s = wall_s
    outcomes.cpu_s = time.process_time() - cpu_before_s
    return outcomes
