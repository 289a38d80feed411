"""A cluster's job server: submit, follow, stop; every refusal as one clear error.

Speaks through Ray's job client. Leaves what is sent to `working_dir` and `entrypoint`, and what
is shown to the command line.
"""

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymeta import runtime
from raymeta.errors import JobError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a Ray head on this machine has its dashboard and job server."""

STOPPED_EXIT_CODE = 143
"""What a shell reports for a process that was told to end: 128 + SIGTERM."""

_POLL_S = 0.5
_ACTIVE = frozenset({"PENDING", "RUNNING"})


@dataclass(frozen=True)
class JobReport:
    """A job as its server knows it.

    Attributes:
        job_id: the id it was submitted with.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: its own, once it has ended; see `exit_code_of`.
        message: the server's words on the status.
        entrypoint: the command it runs.
        started_ts_ms: when it started, ended_ts_ms when it ended; None until then.
    """

    job_id: str
    status: str
    exit_code: int | None
    message: str
    entrypoint: str
    started_ts_ms: int | None = None
    ended_ts_ms: int | None = None

    @property
    def is_over(self) -> bool:
        return self.status not in _ACTIVE


class JobServer:
    """The job server of the cluster at `address`, e.g. `http://127.0.0.1:8265`.

    Raises:
        JobError: nothing answers there, or it refuses this machine's token.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, client: Any = None) -> None:
        self.address = address if "://" in address else f"http://{address}"
        self._client = client if client is not None else _connect(self.address)

    def submit(
        self,
        command: str,
        *,
        working_dir: Path,
        submission_id: str | None = None,
        num_cpus: float = 0.0,
    ) -> str:
        """Sends `working_dir` and starts `command` in its copy there; returns the job's id.

        Args:
            num_cpus: what the job's own process takes; the workers that it starts are counted
                by themselves, so that the default lets one job use the whole cluster.
        """
        job_id = submission_id or f"raymeta-{uuid.uuid4().hex[:10]}"
        with self._explained(job_id):
            return str(
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=job_id,
                    entrypoint_num_cpus=num_cpus,
                    runtime_env={
                        "working_dir": str(working_dir),
                        # lines must reach the one who follows when they are written
                        "env_vars": {"PYTHONUNBUFFERED": "1"},
                    },
                )
            )

    def report(self, job_id: str) -> JobReport:
        """What the server knows of a job now."""
        with self._explained(job_id):
            info = self._client.get_job_info(job_id)
        status = str(getattr(info.status, "value", info.status))
        return JobReport(
            job_id=job_id,
            status=status,
            exit_code=exit_code_of(status, info.driver_exit_code),
            message=info.message or "",
            entrypoint=info.entrypoint,
            started_ts_ms=info.start_time,
            ended_ts_ms=info.end_time,
        )

    def logs(self, job_id: str) -> str:
        """All that the job has written so far, stdout and stderr as they came."""
        with self._explained(job_id):
            return str(self._client.get_job_logs(job_id))

    def follow(
        self,
        job_id: str,
        write: Callable[[str], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> JobReport:
        """Passes on what the job writes, as it comes, until it ends.

        A connection that breaks is made again, and nothing is passed on twice.
        """
        with self._explained(job_id):
            num_written = 0
            while True:
                num_written = asyncio.run(_tail(self._client, job_id, write, num_written))
                report = self.report(job_id)
                if report.is_over:
                    # the tail may have broken off before the last lines
                    if rest := self.logs(job_id)[num_written:]:
                        write(rest)
                    return report
                sleep(_POLL_S)

    def stop(
        self,
        job_id: str,
        *,
        timeout_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> JobReport:
        """Ends a job and waits until it has ended; one that has ended already stays as it is.

        Raises:
            JobError: it still runs after `timeout_s`.
        """
        with self._explained(job_id):
            report = self.report(job_id)
            if report.is_over:
                return report
            self._client.stop_job(job_id)
            waited_s = 0.0
            while not (report := self.report(job_id)).is_over:
                if waited_s >= timeout_s:
                    raise JobError(
                        f"Job '{job_id}' is still {report.status} {timeout_s:g} s after stop.",
                        remedy=f"Look at it with: raymeta job logs {job_id}.",
                    )
                sleep(_POLL_S)
                waited_s += _POLL_S
            return report

    @contextlib.contextmanager
    def _explained(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except JobError:
            raise
        except _client_errors() as error:
            raise _explain(error, job_id, self.address) from error


def exit_code_of(status: str, driver_exit_code: int | None) -> int | None:
    """The exit code that following a job ends with: the job's own; None while it runs.

    Ended by a signal counts as shells count it, 128 + the signal. A job that failed before it had
    a process (a package missing, no room) has none of its own and counts as 1.
    """
    if status in _ACTIVE:
        return None
    if status == "SUCCEEDED":
        return 0
    if driver_exit_code is not None and driver_exit_code != 0:
        return driver_exit_code if driver_exit_code > 0 else 128 - driver_exit_code
    return STOPPED_EXIT_CODE if status == "STOPPED" else 1


async def _tail(client: Any, job_id: str, write: Callable[[str], None], num_written: int) -> int:
    """Follows the log once, skipping what was written; returns how much is written then."""
    position = 0
    try:
        async for chunk in client.tail_job_logs(job_id):
            fresh = chunk[max(0, num_written - position) :]
            position += len(chunk)
            if fresh:
                write(fresh)
                num_written += len(fresh)
    except _client_errors():
        # the caller asks for the job's status, which says whether the server is gone
        pass
    return num_written


def _connect(address: str) -> Any:
    runtime.prepare_environment()
    from ray.job_submission import JobSubmissionClient

    # they announce every package and every closed connection
    for name in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
    ):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    try:
        # Ray lets these two variables win over the address that it is given
        with _environment("RAY_API_SERVER_ADDRESS", address):
            return JobSubmissionClient(address, headers=runtime.auth_headers())
    except _client_errors() as error:
        raise _explain(error, "", address) from error


def _client_errors() -> tuple[type[Exception], ...]:
    """What Ray's job client raises: its own errors, and those of the HTTP libraries below it."""
    import aiohttp
    from ray.exceptions import RayError

    return (RuntimeError, OSError, ValueError, RayError, aiohttp.ClientError)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _explain(error: Exception, job_id: str, address: str) -> JobError:
    text = str(error)
    if type(error).__name__ == "AuthenticationError":
        return JobError(
            f"The job server at {address} refuses this machine's token.",
            remedy=(
                "Use the cluster's token: put it in ~/.ray/auth_token (mode 0600), or name its "
                "file with RAY_AUTH_TOKEN_PATH."
            ),
        )
    if "already exists" in text:
        return JobError(
            f"A job '{job_id}' was submitted before.",
            remedy="Choose another --submission-id, or leave it out.",
        )
    if "404" in text or "does not exist" in text:
        return JobError(
            f"The job server at {address} knows no job '{job_id}'.",
            remedy="Check the id that submit printed, and --address.",
        )
    if isinstance(error, OSError):
        return JobError(
            f"No job server answers at {address}.",
            remedy="Start one with cluster/local.sh start, or name another with --address.",
        )
    return JobError(
        f"The job server at {address} refused the request: {text.strip().splitlines()[0][:500]}",
        remedy="Look at the head's log.",
    )
