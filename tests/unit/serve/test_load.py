"""The load tool: what it draws, and that it times from when a request was due."""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import uvloop

from raymeta.errors import DataError, ResourceError
from raymeta.serve.load import report, run
from raymeta.serve.load.client import NO_ANSWER, Outcomes, closed_loop, open_loop
from raymeta.serve.load.run import Target
from raymeta.serve.load.traffic import Traffic, arrivals, http_requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
REFUSES = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def server(answer: Callable[[int], tuple[float, bytes]]) -> AsyncIterator[int]:
    """Answers the n-th request with bytes, after a time; no bytes: it hangs up. Gives the port."""
    count = itertools.count()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                delay_s, data = answer(next(count))
                await asyncio.sleep(delay_s)
                if not data or data == CLOSES:
                    writer.write(data)
                    writer.close()
                    return
                half = len(data) // 2  # an answer may come in pieces
                writer.write(data[:half])
                await asyncio.sleep(0)
                writer.write(data[half:])
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def requests() -> "itertools.repeat[bytes]":
    bodies = iter([b"{}"])
    (request,) = http_requests(bodies, host="h", path="/v1/recommend", headers={"X": "y"})
    return itertools.repeat(request)


def sent_openly(
    answer: Callable[[int], tuple[float, bytes]], times: list[float], **options: float
) -> Outcomes:
    async def send() -> Outcomes:
        async with server(answer) as port:
            return await open_loop(
                "127.0.0.1",
                port,
                requests(),
                np.array(times),
                **options,  # type: ignore[arg-type]
            )

    return asyncio.run(send())


@pytest.mark.parametrize("data", [OK, CHUNKED, CLOSES], ids=["length", "chunked", "closes"])
def test_every_request_is_answered_once(data: bytes) -> None:
    outcomes = sent_openly(lambda n: (0.0, data), [0.002 * n for n in range(50)])
    assert outcomes.statuses == [200] * 50
    assert len(outcomes.latencies_s) == 50


def test_a_stall_is_counted_against_all_that_were_due_in_it() -> None:
    def stall_once(number: int) -> tuple[float, bytes]:
        return (0.3 if number == 0 else 0.0), OK

    times = [0.01 * n for n in range(25)]
    outcomes = sent_openly(stall_once, times, max_connections=1)
    # each had to wait for the end of the stall: 300 ms, 290 ms, ...
    late = sorted(outcomes.latencies_s)
    assert sum(latency > 0.05 for latency in late) >= 23
    assert late[-1] >= 0.29


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_request_that_is_sent_early_does_not_look_fast(runner: Callable[..., Outcomes]) -> None:
    async def send() -> Outcomes:
        async with server(lambda n: (0.003, OK)) as port:
            times = np.arange(40) * 0.0047
            return await open_loop("127.0.0.1", port, requests(), times)

    # uvloop's timers count whole milliseconds, so the answer's own 3 ms may be 2
    assert min(runner(send()).latencies_s) > 0.0019


def test_refusals_and_broken_connections_are_told_apart() -> None:
    def answer(number: int) -> tuple[float, bytes]:
        return 0.0, {0: REFUSES, 1: b""}.get(number, OK)

    outcomes = sent_openly(answer, [0.02 * n for n in range(5)])
    assert Counter(outcomes.statuses) == {200: 3, 503: 1, NO_ANSWER: 1}


def test_what_is_not_answered_in_time_is_given_up() -> None:
    outcomes = sent_openly(lambda n: (30.0, OK), [0.0, 0.0], timeout_s=0.1)
    assert outcomes.statuses == [NO_ANSWER] * 2


def test_nobody_listens() -> None:
    async def send() -> Outcomes:
        return await open_loop("127.0.0.1", 1, requests(), np.array([0.0, 0.01]), timeout_s=1.0)

    assert asyncio.run(send()).statuses == [NO_ANSWER] * 2


def test_a_closed_loop_keeps_so_many_under_way() -> None:
    async def send() -> Outcomes:
        async with server(lambda n: (0.02, OK)) as port:
            return await closed_loop("127.0.0.1", port, requests(), concurrency=4, duration_s=0.3)

    outcomes = asyncio.run(send())
    assert set(outcomes.statuses) == {200}
    # four at a time, 20 ms each, for 300 ms
    assert 20 <= len(outcomes.statuses) <= 64


def test_arrivals_have_the_rate_and_the_bursts_that_were_asked_for() -> None:
    times = arrivals(200.0, 40.0, burst=4.0, seed=1)
    assert len(times) == pytest.approx(8000, rel=0.05)
    assert np.all(np.diff(times) >= 0)
    even = (times.astype(int) % 2 == 0).sum()
    assert even / (len(times) - even) == pytest.approx(4.0, rel=0.15)
    assert np.array_equal(times, arrivals(200.0, 40.0, burst=4.0, seed=1))
    with pytest.raises(DataError, match="no load of rate 0"):
        arrivals(0.0, 1.0)


def test_traffic_looks_like_a_shop() -> None:
    traffic = Traffic(num_users=50, zipf=1.0, new_share=0.2, write_share=0.5, seed=3)
    drawn = traffic.bodies(["a", "b"], "purchase", run="r")
    bodies = [json.loads(body) for body in itertools.islice(drawn, 6000)]
    users = Counter(body["user_id"] for body in bodies)
    returning = {user: count for user, count in users.items() if "-new-" not in user}
    assert 1 - sum(returning.values()) / 6000 == pytest.approx(0.2, abs=0.03)
    assert returning["r-0"] / returning["r-4"] == pytest.approx(5.0, rel=0.35)
    assert sum(bool(body["events"]) for body in bodies) / 6000 == pytest.approx(0.5, abs=0.03)
    ids = [body["events"][0]["event_id"] for body in bodies if body["events"]]
    assert len(set(ids)) == len(ids)


def test_the_session_header_names_the_user() -> None:
    bodies = Traffic(num_users=1, new_share=0.0).bodies(["a"], "view", run="r")
    head = next(http_requests(bodies, host="h", path="/p", headers={}, affinity=True))
    assert b"\r\nX-Session-Id: r-0\r\n" in head


def test_a_summary_counts_good_answers_alone(tmp_path: Path) -> None:
    outcomes = Outcomes([0.001 * n for n in range(1, 101)], [200] * 98 + [503, 0], 2.0, 0.5)
    facts = report.summary(outcomes)
    assert (facts["sent"], facts["good"], facts["errors"]) == (100, 98, {"503": 1, "no answer": 1})
    assert (facts["throughput_per_s"], facts["generator_cpu"]) == (49.0, 0.25)
    assert facts["latency_ms"]["p50"] == pytest.approx(49.5)
    assert facts["latency_ms"]["max"] == pytest.approx(98.0)
    report.plot({"one": outcomes, "none": Outcomes()}, tmp_path / "deep" / "plot.png")
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_generators_own_limit_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESPONDER_S", 0.2)
    assert run.generator_limit() > 100.0


def test_a_target_that_is_not_there_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ResourceError, match="No service answers at"):
        run.discover(Target("endpoint", "http://127.0.0.1:1"))
