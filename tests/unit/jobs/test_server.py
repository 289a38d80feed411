"""Following a job: every line once, its own exit code; each refusal in words."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymeta.errors import JobError
from raymeta.jobs.server import JobServer, exit_code_of


class Server:
    """A job server whose job writes `lines`, over connections that break after `breaks` chunks."""

    def __init__(
        self,
        lines: list[str],
        *,
        breaks: tuple[int, ...] = (),
        status: str = "FAILED",
        code: Any = 7,
    ) -> None:
        self.lines, self.breaks = lines, list(breaks)
        self.status, self.code = status, code
        self.over = False
        self.stopped: list[str] = []

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        if job_id == "absent":
            raise RuntimeError("Request failed with status code 404: Job absent does not exist")
        return SimpleNamespace(
            status=self.status if self.over else "RUNNING",
            driver_exit_code=self.code if self.over else None,
            message=None,
            entrypoint="python mine.py",
            start_time=1_000,
            end_time=3_000 if self.over else None,
        )

    def get_job_logs(self, job_id: str) -> str:
        return "".join(self.lines)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        limit = self.breaks.pop(0) if self.breaks else None
        for number, line in enumerate(self.lines):
            if number == limit:
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield line
        self.over = True

    def stop_job(self, job_id: str) -> None:
        self.stopped.append(job_id)


def follow(server: Server) -> tuple[str, Any]:
    written: list[str] = []
    report = JobServer(client=server).follow("a1", written.append, sleep=lambda _: None)
    return "".join(written), report


@pytest.mark.parametrize("breaks", [(), (0,), (1, 2), (2, 1)])
def test_every_line_is_passed_on_once(breaks: tuple[int, ...]) -> None:
    text, report = follow(Server(["one\n", "two\n", "three\n"], breaks=breaks))
    assert text == "one\ntwo\nthree\n"
    assert report.exit_code == 7


def test_lines_behind_a_connection_that_broke_at_the_end_are_not_lost() -> None:
    server = Server(["one\n", "two\n"], breaks=(1,))
    server.over = True
    assert follow(server)[0] == "one\ntwo\n"


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        ("PENDING", None, None),
        ("RUNNING", None, None),
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 7, 7),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("FAILED", -9, 137),
        ("STOPPED", None, 143),
        ("STOPPED", -15, 143),
    ],
)
def test_the_exit_code_is_the_jobs_own(status: str, driver: int | None, code: int | None) -> None:
    assert exit_code_of(status, driver) == code


def test_stop_waits_until_it_has_ended() -> None:
    server = Server([], status="STOPPED", code=None)

    def sleep(_: float) -> None:
        server.over = True

    assert JobServer(client=server).stop("a1", sleep=sleep).exit_code == 143
    assert server.stopped == ["a1"]
    JobServer(client=server).stop("a1")
    assert server.stopped == ["a1"], "one that has ended is left alone"


def test_a_job_that_does_not_stop_is_reported() -> None:
    with pytest.raises(JobError, match="still RUNNING 2 s after stop"):
        JobServer(client=Server([])).stop("a1", timeout_s=2.0, sleep=lambda _: None)


def test_an_unknown_job() -> None:
    with pytest.raises(JobError, match="knows no job 'absent'"):
        JobServer("http://host:1", client=Server([])).report("absent")


def test_an_id_that_is_taken_and_a_refusal_in_the_servers_words() -> None:
    class Refusing(Server):
        def submit_job(self, **_: Any) -> str:
            raise RuntimeError(self.text)

    server = Refusing([])
    for text, message in (
        ("status code 500: Job with submission_id a1 already exists.", "'a1' was submitted before"),
        ("status code 500: no room\nTraceback", "refused the request: status code 500: no room"),
    ):
        server.text = text
        with pytest.raises(JobError) as caught:
            JobServer(client=server).submit("true", working_dir=Path(), submission_id="a1")
        assert message in caught.value.message
        assert "Traceback" not in caught.value.message


def test_nothing_answers() -> None:
    class Gone(Server):
        def get_job_info(self, job_id: str) -> SimpleNamespace:
            raise ConnectionError("refused")

    with pytest.raises(JobError, match=r"No job server answers at http://host:1\.") as caught:
        JobServer("host:1", client=Gone([])).report("a1")
    assert "cluster/local.sh start" in caught.value.remedy
