"""The head that `cluster/local.sh` starts: logs followed, a job's own exit code, stop, token."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raymeta.runtime import free_port
from tests.helpers.runs import AS_IN_A_TERMINAL

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
LOCAL_SH = ROOT / "cluster" / "local.sh"


@dataclass
class Head:
    environment: dict[str, str]
    address: str
    folder: Path

    def raymeta(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raymeta", *words],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd or self.folder,
            env=self.environment,
        )

    def local_sh(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LOCAL_SH, verb], capture_output=True, text=True, timeout=120, env=self.environment
        )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("jobs")
    # a short path of its own: a socket's path has at most 107 bytes
    temp = tempfile.mkdtemp(prefix="rm-", dir="/tmp")
    dashboard = free_port()
    address = f"http://127.0.0.1:{dashboard}"
    environment = {
        **os.environ,
        "RAYMETA_TEMP": temp,
        "RAYMETA_PORT": str(free_port()),
        "RAYMETA_DASHBOARD": str(dashboard),
        "RAYMETA_CPUS": "2",
        "RAY_API_SERVER_ADDRESS": address,
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_AUTH_MODE": "token",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("RAY_ADDRESS", None)
    (folder / "mine.py").write_text(
        "import sys, time\n"
        "print('one', flush=True)\n"
        "print('two', file=sys.stderr, flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    (folder / "shop.yaml").write_text("name: shop\nseed: 3\n")
    made = Head(environment, address, folder)
    started = made.local_sh("start")
    assert started.returncode == 0, started.stderr
    try:
        yield made
    finally:
        made.local_sh("stop")


def test_the_logs_are_followed_and_the_exit_code_is_the_jobs_own(head: Head) -> None:
    done = head.raymeta("job", "submit", "--", "python", "mine.py", "7", "0")
    assert done.returncode == 7, done.stderr
    assert "one\n" in done.stdout
    assert "two\n" in done.stdout
    assert "FAILED, exit code 7" in done.stderr


def test_a_verb_runs_with_the_files_of_the_folder_and_json_is_one_line(head: Head) -> None:
    done = head.raymeta("job", "submit", "--json", "--", "config", "show", "shop.yaml", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["exit_code"]) == ("SUCCEEDED", 0)
    logs = head.raymeta("job", "logs", report["job_id"])
    assert '"seed": 3' in logs.stdout


def test_stop_ends_a_job_and_ctrl_c_does_not(head: Head) -> None:
    words = ["job", "submit", "--submission-id", "long", "--", "python", "mine.py", "0", "100"]
    follower = subprocess.Popen(
        [sys.executable, "-c", AS_IN_A_TERMINAL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=head.folder,
        env=head.environment,
    )
    assert follower.stdout is not None
    for line in follower.stdout:
        if line == "one\n":
            break
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "The job goes on. Follow it: raymeta job logs long --follow" in errors
    assert "RUNNING" in head.raymeta("job", "status", "long").stdout
    stopped = head.raymeta("job", "stop", "long", "--json")
    assert json.loads(stopped.stdout)["status"] == "STOPPED"
    assert head.raymeta("job", "logs", "long", "--follow").returncode == 143
    again = head.raymeta("job", "submit", "--submission-id", "long", "--", "true")
    assert again.returncode == 1
    assert "A job 'long' was submitted before." in again.stderr


def test_a_stranger_is_refused(head: Head) -> None:
    stranger = Head({**head.environment, "RAY_AUTH_TOKEN": "0" * 64}, head.address, head.folder)
    refused = stranger.raymeta("job", "submit", "--", "true")
    assert refused.returncode == 1
    assert f"The job server at {head.address} refuses this machine's token." in refused.stderr
    assert (Path(head.environment["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o777) == 0o600


def test_start_stop_and_status_know_their_own(head: Head, tmp_path: Path) -> None:
    assert head.local_sh("status").returncode == 0
    second = head.local_sh("start")
    assert second.returncode == 2
    assert "The head runs already" in second.stderr
    # stop looks in its own folder only, and one of another is left alone
    other = Head({**head.environment, "RAYMETA_TEMP": str(tmp_path)}, head.address, head.folder)
    assert other.local_sh("stop").stdout == "No head that this script started runs.\n"
    assert head.local_sh("status").returncode == 0
    taken = other.local_sh("start")
    assert taken.returncode == 2
    assert f"Port {head.environment['RAYMETA_PORT']} on 127.0.0.1 is in use" in taken.stderr
    # nor is a process that only happens to have the id that was noted
    bystander = subprocess.Popen(["sleep", "30"])
    (tmp_path / "head.pid").write_text(f"{bystander.pid}\nMon Jan  1 00:00:00 2001\n")
    other.local_sh("stop")
    time.sleep(0.2)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_no_server() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "raymeta", "job", "status", "a1", "--address", address],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert f"No job server answers at {address}." in done.stderr
