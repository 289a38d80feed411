"""Who may import whom: the layers, and the places where ray, fastapi and torch may be imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The longest prefix of a module's name decides its layer; an import goes down or stays inside its
# own package.
LAYERS = {
    "raymeta": 0,
    "raymeta.errors": 0,
    "raymeta.types": 0,
    "raymeta.seeding": 0,
    "raymeta.observability": 0,
    "raymeta.config": 0,
    "raymeta.models": 1,
    "raymeta.adapters": 1,
    "raymeta.inner": 1,
    "raymeta.privacy": 1,
    "raymeta.evaluation.metrics": 1,
    "raymeta.data": 1,
    "raymeta.serve.schemas": 1,
    "raymeta.algorithms": 2,
    "raymeta.client": 2,
    "raymeta.artifact": 3,
    "raymeta.evaluation": 3,
    "raymeta.config.build": 3,
    "raymeta.config.build_ratings": 3,
    "raymeta.config.build_intent": 3,
    "raymeta.config.build_search": 3,
    "raymeta.config.build_sequence": 3,
    "raymeta.runtime": 4,
    "raymeta.train": 4,
    "raymeta.tune": 4,
    "raymeta.experiments": 4,
    "raymeta.serve": 4,
    "raymeta.jobs": 4,
    "raymeta.data.pipeline": 4,
    "raymeta.cli": 5,
    "raymeta.__main__": 5,
    "serve_apps": 5,
}
# Layer 4 holds packages that do not know each other, except as stated here.
LAYER_4 = {
    "raymeta.runtime": set(),
    "raymeta.train": {"raymeta.runtime"},
    "raymeta.tune": {"raymeta.runtime", "raymeta.train"},
    "raymeta.experiments": {"raymeta.runtime", "raymeta.train"},
    "raymeta.serve": {"raymeta.runtime"},
    "raymeta.jobs": {"raymeta.runtime"},
    "raymeta.data.pipeline": {"raymeta.runtime"},
}
# A package outside the tree -> the modules, by prefix, that may import it.
ONLY_IN = {
    "ray": (
        "raymeta.runtime",
        "raymeta.train",
        "raymeta.tune",
        "raymeta.experiments",
        "raymeta.serve",
        "raymeta.jobs",
        "raymeta.data.pipeline",
        "serve_apps",
    ),
    "fastapi": ("raymeta.serve",),
    "starlette": ("raymeta.serve",),
    "torch": (
        "raymeta.types",
        "raymeta.seeding",
        "raymeta.config.build",
        "raymeta.config.build_ratings",
        "raymeta.config.build_intent",
        "raymeta.config.build_search",
        "raymeta.config.build_sequence",
        "raymeta.models",
        "raymeta.adapters",
        "raymeta.inner",
        "raymeta.privacy",
        "raymeta.algorithms",
        "raymeta.artifact",
        "raymeta.evaluation",
        "raymeta.data.collate",
        "raymeta.data.events",
        "raymeta.data.worlds",
        "raymeta.train",
        "raymeta.experiments",
        "raymeta.serve",
        "raymeta.cli.demo",
    ),
}


def modules() -> dict[str, Path]:
    found = {}
    for top in ("raymeta", "serve_apps"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                keep = len(parents) - node.level + is_package
                base = ".".join([*parents[:keep], *filter(None, [base])])
            # `from package import module` and `from module import name` look alike
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def owner(name: str, table: dict[str, object] | tuple[str, ...]) -> str | None:
    """The longest prefix of `name` in `table`."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in table:
            return prefix
    return None


def complaint(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`; None if it may."""
    top = imported.split(".")[0]
    if top in ONLY_IN:
        if owner(module, ONLY_IN[top]) is None:
            return f"{top} is imported only in {', '.join(ONLY_IN[top])}"
        return None
    if top not in ("raymeta", "serve_apps"):
        return None
    mine, other = owner(module, LAYERS), owner(imported, LAYERS)
    if mine is None or other is None:
        return "a module is in no layer: add it to LAYERS"
    if mine == other or other == "raymeta":
        return None
    if LAYERS[other] > LAYERS[mine]:
        return f"layer {LAYERS[mine]} ({mine}) imports layer {LAYERS[other]} ({other})"
    if LAYERS[mine] == 4 == LAYERS[other] and other not in LAYER_4[mine]:
        return f"{mine} does not know {other}"
    return None


def test_every_import_goes_down_or_stays_in_its_package() -> None:
    wrong = []
    for module, path in modules().items():
        source = path.read_text(encoding="utf-8")
        for line, name in imports(source, module, is_package=path.name == "__init__.py"):
            # the public API names modules of every layer, for a type checker only
            if module == "raymeta" and "TYPE_CHECKING" in source:
                continue
            if why := complaint(module, name):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: imports {name}: {why}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("raymeta.models.base", "raymeta.algorithms.base.MetaAlgorithm", False),
        ("raymeta.algorithms.base", "raymeta.models.base.TaskModel", True),
        ("raymeta.serve.service", "raymeta.train.loop.run", False),
        ("raymeta.tune.sweep", "raymeta.train.run.train_in_process", True),
        ("raymeta.train.loop", "raymeta.tune.sweep.run_sweep", False),
        ("raymeta.evaluation.metrics", "raymeta.evaluation.protocol.run", False),
        ("raymeta.config.experiment", "raymeta.config.build.build", False),
        ("raymeta.config.experiment", "torch", False),
        ("raymeta.data.splits", "ray", False),
        ("raymeta.data.pipeline", "ray.data", True),
        ("raymeta.cli.train", "fastapi", False),
        ("raymeta.inner.adapt", "raymeta.errors.AdaptationError", True),
        ("raymeta.client.calls", "raymeta.serve.schemas.events.Event", True),
        ("raymeta.client.clients", "raymeta.serve.service.Service", False),
        ("raymeta.client.clients", "ray", False),
        ("raymeta.client.clients", "torch", False),
        ("raymeta.serve.schemas.events", "raymeta.serve.service.Service", False),
        ("raymeta.newcomer", "raymeta.models.base", False),
    ],
)
def test_the_rules_themselves(module: str, imported: str, allowed: bool) -> None:
    # `raymeta.newcomer` falls back to the package's own layer, the lowest, so that it is noticed
    assert (complaint(module, imported) is None) is allowed


def test_relative_imports_are_resolved() -> None:
    found = list(imports("from ..b import c", "raymeta.x.y", is_package=False))
    assert found == [(1, "raymeta.b.c")]
    assert list(imports("from . import c", "raymeta.x", is_package=True)) == [(1, "raymeta.x.c")]
