"""The cluster files: of one version, with the token on, and with settings that raymeta accepts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raymeta.config.serving import ServingConfig

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster").glob("*.yaml"))
RAY_VERSION = next(
    line.removeprefix("ray==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("ray==")
)


def everything(node: Any, key: str) -> list[Any]:
    """Every value under `key`, at any depth."""
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [found for value in node.values() for found in everything(value, key)]
    if isinstance(node, list):
        return [found for value in node for found in everything(value, key)]
    return []


def test_the_files_are_there() -> None:
    assert [path.name for path in FILES] == ["raycluster.yaml", "rayjob.yaml", "rayservice.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_same_ray_same_image_and_the_token_from_a_secret(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert everything(manifest, "rayVersion") == [RAY_VERSION]
    containers = [c for group in everything(manifest, "containers") for c in group]
    assert containers
    for container in containers:
        assert container["image"] == "raymeta:0.1.0"
        env = {entry["name"]: entry for entry in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in env["RAY_AUTH_TOKEN"]["valueFrom"]


def test_the_service_holds_valid_settings() -> None:
    manifest = yaml.safe_load((ROOT / "cluster" / "rayservice.yaml").read_text())
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    (deployment,) = application["deployments"]
    values = {**application["args"], **deployment["user_config"]}
    config = ServingConfig.parse(values, source="rayservice.yaml")
    assert config.replicas.num_replicas == 2
    assert application["import_path"] == "serve_apps.recommender:build"


def test_the_jobs_experiment_exists() -> None:
    manifest = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
    words = manifest["spec"]["entrypoint"].split()
    assert words[:2] == ["raymeta", "train"]
    assert (ROOT / words[2].removeprefix("/opt/raymeta/")).is_file()


def test_the_lock_pins_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all("==" in line and "+" not in line and "@" not in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = project["dependencies"] + [
        name for extra in project["optional-dependencies"].values() for name in extra
    ]
    for requirement in wanted:
        name = requirement.split("[")[0].split(">")[0].lower()
        assert name == "raymeta" or name in pinned, f"constraints.txt does not pin {name}"
