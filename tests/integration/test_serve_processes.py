"""A service in a process of its own: behind Serve's Python proxy, and after its driver's death."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raymeta.runtime import free_port
from tests.helpers.artifacts import tiny_artifact

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

THROUGH_THE_PYTHON_PROXY = """
import json, sys, urllib.request
from raymeta.serve.local import serve_artifact

def ask(url, body, session):
    headers = {"Content-Type": "application/json", "X-Session-Id": session}
    request = urllib.request.Request(url + "/v1/recommend", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)

artifact, port, store = sys.argv[1:]
with serve_artifact(artifact, port=int(port), num_replicas=2, store=store) as url:
    item = ask(url, {"user_id": "x", "n": 1}, "x")["items"][0]["id"]
    for number in range(1, 21):
        event = {"item_id": item, "event_type": "purchase"}
        answer = ask(url, {"user_id": "ann", "events": [event]}, "ann")
        assert answer["state_version"] == number, answer
        assert ask(url, {"user_id": "ann"}, f"other-{number}")["state_version"] == number
print("as it should be")
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    tiny_artifact(folder)
    return folder


def environment(**changes: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY")}
    return {**own, "PYTHONPATH": str(ROOT), **changes}


def test_without_haproxy_the_python_proxy_answers_as_freshly(
    artifact: Path, tmp_path: Path
) -> None:
    arguments = [str(artifact), str(free_port()), str(tmp_path / "events.sqlite")]
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_THE_PYTHON_PROXY, *arguments],
        env=environment(RAY_SERVE_ENABLE_HA_PROXY="0"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "as it should be"
    assert "answers through its Python proxy" in done.stderr


def test_the_python_proxy_killed_under_load_loses_nothing() -> None:
    """The chaos arm of that name, in a process that starts Ray without HAProxy."""
    words = ["-q", "-s", "-m", "ray and slow", "-k", "baseline or python"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "tests/chaos/test_serve_chaos.py"],
        env=environment(RAY_SERVE_ENABLE_HA_PROXY="0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout


def test_a_service_ends_soon_after_its_driver_was_killed(artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raymeta", "serve", str(artifact), "--json"]
    command += ["--port", str(free_port()), "--store", str(tmp_path / "events.sqlite")]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stdout is not None
        assert json.loads(driver.stdout.readline())["url"]
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
    started = time.monotonic()
    _, left = psutil.wait_procs(family, timeout=90)
    names = sorted(" ".join(process.cmdline()[:2]) for process in left)
    for process in left:
        process.kill()
    assert not left, f"after 90 s there were {names}"
    print(f"\n{len(family)} processes ended within {time.monotonic() - started:.1f} s")
