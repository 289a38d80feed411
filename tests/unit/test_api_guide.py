"""The API guide does what it says: its commands and its Python, in order, against a service."""

import contextlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from raymeta.client import calls
from raymeta.config.serving import LimitsConfig, RetentionConfig, ServingConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.features import FeatureVocab
from raymeta.serve.access import Keys
from raymeta.serve.compat.products import ROUTES_OF
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.helpers.http import listening
from tests.unit.serve.conftest import KINDS, Counting, SmallArtifact

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "serve_apps" / "README.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


def service(executor: ThreadPoolExecutor) -> Service:
    """A shop with the guide's items: one who bought an item is shown the one after it."""
    ids = [f"{kind}-{n}" for kind in ("shoe", "hat") for n in range(1, 5)]
    items = pa.table(
        {
            "item_id": ids,
            "category": ["shoes" if i.startswith("shoe") else "hats" for i in ids],
            "price": [float(n) for n in range(len(ids))],
        }
    )
    artifact = SmallArtifact(
        algorithm=Counting(num_items=len(ids), poison=-1, nan=-1),
        catalogue=Catalogue(items, KINDS, FeatureVocab.count(items, KINDS, min_rows=1)),
        meta_params={"prior": torch.linspace(0.8, 0.1, len(ids))},
    )
    maker = Maker(executor, max_batch=16, generator=np.random.default_rng(0))
    made = Service(
        MemoryEventStore(retention=Retention(events=100)),
        maker,
        keys=Keys(),
        limits=LimitsConfig(),
        retention=RetentionConfig(),
        state_cache_bytes=1 << 20,
    )
    variant = first_variant(artifact, maker)  # type: ignore[arg-type]
    made.use({"default": TenantModels({"default": variant}, "default")})
    return made


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadPoolExecutor(1) as executor, listening(create_app(service(executor))) as found:
        yield found


def run_shell(block: str, url: str) -> list[str]:
    """What each command of a block says, line by line."""
    script = f'raymeta() {{ "{sys.executable}" -m raymeta "$@"; }}\nURL={url}\n{block}'
    # each answer on lines of its own
    script = script.replace("curl -s", "echo; curl -s")
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, cwd=ROOT, env={**os.environ}
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_block_does_what_it_shows(url: str) -> None:
    names: dict[str, Any] = {}
    refused = []
    for kind, block in BLOCKS:
        code = block.replace(URL, url)
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, "the guide", "exec"), names)
            continue
        lines = run_shell(code, url)
        assert lines, block
        for line in lines:
            if line.startswith('{"type":"about:blank"'):
                refused.append((block.split()[2], json.loads(line)["status"]))
    names["client"].close()
    assert refused == [("$URL/v1/predict", 422)]


def test_every_route_is_shown_in_both_ways(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        described = create_app(service(executor)).openapi()["paths"]
    shown = set()
    python = "".join(block for kind, block in BLOCKS if kind == "python")
    shell = "".join(block for kind, block in BLOCKS if kind == "sh")
    for command in re.split(r"^(?=curl)", shell, flags=re.MULTILINE):
        found = re.match(r'curl -s (?:-X (\w+) )?"?\$URL(/[^\s"?]*)', command)
        if found is not None:
            method = found[1] or ("POST" if "--json" in command else "GET")
            shown.add((method, found[2]))
    for path, methods in described.items():
        if path.startswith("/v1/"):
            pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
            for method in methods:
                assert any(pattern.fullmatch(p) and m == method.upper() for m, p in shown), (
                    f"no curl shows {method.upper()} {path}"
                )
    for name, value in vars(calls).items():
        is_a_call = inspect.isfunction(value) and value.__module__ == calls.__name__
        if is_a_call and not name.startswith("_") and name != "request":
            assert f"client.{name}(" in python, f"no Python shows {name}"


def test_the_migration_note_names_the_products_and_settings_that_there_are() -> None:
    for product in ROUTES_OF:
        assert f"| {product.capitalize()} |" in GUIDE
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    shown = ServingConfig.parse(yaml.safe_load(settings)["args"], source="the guide").compat
    assert shown.products == ("gorse",)
    assert shown.event_types == {"star": "purchase"}
    assert {*re.findall(r"[a-z]+", settings)} >= {*ROUTES_OF}
