"""A virtual environment a contender, so that none changes another's packages.

Each sees the packages that raymeta is installed beside (torch and numpy are not installed again),
except JAX, which brings its own numpy. learn2learn's wheel does not build on current Python and
its package imports gym, torchvision and lightning: only the unaltered sources of its algorithm are
taken, under empty `__init__` files.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

SITE = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
PACKAGES = {
    "higher": ["higher==0.2.1"],
    "torchopt": ["torchopt==0.7.3", "optree", "graphviz"],
    "parallel_metalearn": ["parallel-metalearn==0.5.6"],
    "jax_jit": ["jax"],
}
LEARN2LEARN = "learn2learn==0.2.0"
LEARN2LEARN_FILES = ("algorithms/base_learner.py", "algorithms/maml.py", "utils/__init__.py")


def python_of(contender: str, root: Path) -> Path:
    """The interpreter of a contender; its environment is made when it is missing.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed here.
    """
    if contender in ("raymeta", "raymeta_traced", "raymeta_compiled", "plain"):
        return Path(sys.executable)
    folder = root / contender
    if not (folder / ".made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False, symlinks=True)
        site = folder / SITE
        if contender == "learn2learn":
            _learn2learn(site, folder / "build")
        else:
            alone = contender == "jax_jit"
            _pip(["install", "--target", str(site), *PACKAGES[contender]], dependencies=alone)
        if contender != "jax_jit":
            (site / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / ".made").touch()
    return folder / "bin" / "python"


def _pip(arguments: list[str], *, dependencies: bool, path: Path | None = None) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    if not dependencies:
        command.append("--no-deps")
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.PIPE)


def _learn2learn(site: Path, build: Path) -> None:
    # pip reads the metadata of a source archive by running its set-up, which wants these
    tools = build / "tools"
    wanted = ["setuptools<81", "wheel", "cython", "numpy"]
    _pip(["install", "--target", str(tools), *wanted], dependencies=True)
    options = ["--no-binary", ":all:", "--no-build-isolation", "-d", str(build)]
    _pip(["download", LEARN2LEARN, *options], dependencies=False, path=tools)
    (archive,) = build.glob("learn2learn-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(build, filter="data")
    sources = build / archive.name.removesuffix(".tar.gz") / "learn2learn"
    for name in LEARN2LEARN_FILES:
        target = site / "learn2learn" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources / name, target)
    for folder in ("", "algorithms"):
        (site / "learn2learn" / folder / "__init__.py").touch()
    shutil.rmtree(build)
