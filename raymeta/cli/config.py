"""`raymeta config check|show|diff`: what a settings file says, in full, before anything runs."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from raymeta.cli.output import emit
from raymeta.config.base import StrictModel, load_settings, load_yaml, merge
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.serving import ServingConfig
from raymeta.config.sweep import load_sweep
from raymeta.errors import ConfigError

app = typer.Typer(help="Check, show and compare settings files: experiments, sweeps, serving.")

File = Annotated[Path, typer.Argument(help="A settings file.", metavar="FILE")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="A setting to change, path=value; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]


@app.command()
def check(file: File, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Validate a settings file, and for a sweep every corner of what it searches.

    Example: raymeta config check tune_configs/experiments/complete_journey.yaml
    """
    kind, _ = resolve(file, overrides or [])
    result = {"file": str(file), "kind": kind, "valid": True}
    emit(result, as_json=as_json, render=lambda r: f"{r['file']}: a valid {r['kind']}.")


@app.command()
def show(file: File, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print the whole of a settings file: `extends` merged, defaults filled in.

    Of an experiment, also how many bytes a user's adapted state takes.

    Example: raymeta config show shop.yaml --set algorithm.inner_lr=0.3
    """
    _, settings = resolve(file, overrides or [])
    size = _user_state_bytes(settings)
    emit(
        settings.model_dump(mode="json") | ({} if size is None else {"user_state_bytes": size}),
        as_json=as_json,
        render=_render_settings,
    )


@app.command()
def diff(
    file: File,
    other: Annotated[Path, typer.Argument(help="Another of the same kind.", metavar="OTHER")],
    as_json: AsJson = False,
) -> None:
    """Print the values in which two settings files differ, defaults included.

    Example: raymeta config diff first.yaml second.yaml
    """
    (_, first), (_, second) = resolve(file, []), resolve(other, [])
    left, right = leaves(first.model_dump(mode="json")), leaves(second.model_dump(mode="json"))
    changed = [
        {"path": path, "first": left.get(path), "second": right.get(path)}
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]
    result = {"first": str(file), "second": str(other), "differences": changed}
    emit(result, as_json=as_json, render=_render_diff)


def resolve(file: Path, overrides: list[str]) -> tuple[str, StrictModel]:
    """The kind of a settings file, told by its keys, and its settings."""
    values = load_yaml(file)
    if "applications" in values:
        return "serving configuration", _serve_application(values, file, overrides)
    if "vary" in values or {"experiment", "num_samples"} <= values.keys():
        return "sweep", load_sweep(file, overrides)[0]
    if values.keys() & (ServingConfig.model_fields.keys() - ExperimentConfig.model_fields.keys()):
        return "serving configuration", load_settings(ServingConfig, file, overrides)
    return "experiment", load_settings(ExperimentConfig, file, overrides)


def _serve_application(values: dict[str, Any], file: Path, overrides: list[str]) -> ServingConfig:
    """The settings inside a file of Ray Serve's format: `args`, and the models of `user_config`."""
    if overrides:
        raise ConfigError(
            f"--set does not reach into {file}, which is a file of Ray Serve's own format.",
            remedy="Change the file.",
        )
    applications = values["applications"]
    if not isinstance(applications, list) or len(applications) != 1:
        raise ConfigError(
            f"{file}: 'applications' is not a list of one application.",
            remedy="Check a file for each.",
        )
    merged = dict(applications[0].get("args") or {})
    for deployment in applications[0].get("deployments") or []:
        merged = merge(merged, deployment.get("user_config") or {})
    return ServingConfig.parse(merged, source=f"{file}, args and user_config")


def _user_state_bytes(settings: StrictModel) -> int | None:
    """Bytes of a user's state under an experiment, where the settings alone decide it."""
    if not isinstance(settings, ExperimentConfig):
        return None
    from raymeta.config.build import user_state_bytes  # imports torch, which other verbs do without

    return user_state_bytes(settings)


def _render_settings(values: dict[str, Any]) -> str:
    """A settings file; what is not a setting is a comment in it."""
    size = values.pop("user_state_bytes", None)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return text if size is None else f"{text}\n# A user's adapted state takes {size:,} bytes."


def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """`a.b.c` -> value, for every value that is not a mapping."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _render_diff(result: dict[str, Any]) -> str:
    if not result["differences"]:
        return f"{result['first']} and {result['second']} say the same."
    lines = [f"--- {result['first']}", f"+++ {result['second']}"]
    for row in result["differences"]:
        lines.append(f"{row['path']}: {_text(row['first'])} -> {_text(row['second'])}")
    return "\n".join(lines)


def _text(value: Any) -> str:
    return "(none)" if value is None else str(value)
