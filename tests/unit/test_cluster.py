"""The cluster files: of one version, with the token on, and with settings that raymeta accepts."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymeta.config.serving import ServingConfig

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster").glob("ray*.yaml"))
RAY_VERSION = next(
    line.removeprefix("ray==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("ray==")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"raymeta:{PROJECT['version']}"
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text()

# what KubeRay's ray.io/v1 may say at the top and of a cluster; the rest is of Kubernetes
CLUSTER_KEYS = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
KINDS = {
    "RayCluster": CLUSTER_KEYS,
    "RayJob": {
        "entrypoint",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "backoffLimit",
        "activeDeadlineSeconds",
        "rayClusterSpec",
    },
    "RayService": {"upgradeStrategy", "serveConfigV2", "rayClusterConfig"},
}
GROUP_KEYS = {
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
}


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
        assert container["image"] == IMAGE
        env = {entry["name"]: entry for entry in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in env["RAY_AUTH_TOKEN"]["valueFrom"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_is_one_that_the_operator_reads(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(manifest["spec"]) <= KINDS[manifest["kind"]]
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    assert set(cluster) <= CLUSTER_KEYS
    groups = [("headGroupSpec", cluster["headGroupSpec"])]
    groups += [("workerGroupSpecs", group) for group in cluster.get("workerGroupSpecs", [])]
    for key, group in groups:
        assert set(group) <= GROUP_KEYS[key]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group.get("minReplicas", 0) <= group.get("replicas", 0) or key == "headGroupSpec"
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            # a pod that asks for less than it may use is killed first when memory is short
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_image_is_built_of_what_there_is() -> None:
    assert f"-t {IMAGE} " in DOCKERFILE
    python = re.search(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.MULTILINE)
    assert python is not None
    assert PROJECT["requires-python"] == f">={python.group(1)}"
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), f"COPY {source}"
    extras = re.search(r"'\.\[(.+)\]'", DOCKERFILE)
    assert extras is not None
    assert set(extras.group(1).split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_starts_ray_as_raymeta_does() -> None:
    from raymeta import runtime

    named = dict(re.findall(r"(RAY_\w+)=(\S+)", DOCKERFILE.partition("ENV ")[2]))
    assert named.pop("RAY_AUTH_MODE") == "token"
    script = named.pop("RAY_SERVE_HAPROXY_BINARY_PATH").partition("site-packages/")[2]
    assert (ROOT / script).is_file()
    ours = {**runtime._QUIET_ENVIRONMENT, **runtime._HAPROXY_ENVIRONMENT}
    assert named.items() <= ours.items()


def test_the_service_holds_valid_settings() -> None:
    manifest = yaml.safe_load((ROOT / "cluster" / "rayservice.yaml").read_text())
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    (deployment,) = application["deployments"]
    values = {**application["args"], **deployment["user_config"]}
    config = ServingConfig.parse(values, source="rayservice.yaml")
    assert config.replicas.num_replicas == 2
    # others reach it
    assert config.access is not None
    assert config.access.keys_file.startswith("/keys/")
    assert application["import_path"] == "serve_apps.recommender:build"


def test_the_jobs_experiment_exists() -> None:
    manifest = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
    words = manifest["spec"]["entrypoint"].split()
    assert words[:2] == ["raymeta", "train"]
    assert (ROOT / words[2].removeprefix("/opt/raymeta/")).is_file()


def test_the_lock_pins_every_direct_dependency() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all("==" in line and "+" not in line and "@" not in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = PROJECT["dependencies"] + [
        name for extra in PROJECT["optional-dependencies"].values() for name in extra
    ]
    for requirement in wanted:
        name = requirement.split("[")[0].split(">")[0].lower()
        assert name == "raymeta" or name in pinned, f"constraints.txt does not pin {name}"
