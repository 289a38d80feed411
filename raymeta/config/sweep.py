"""What a sweep is: an experiment, and which of its values vary and how.

Distributions are named from a fixed list and hold their bounds, which are checked here: Ray Tune
itself accepts an empty range in silence. Leaves making Ray's objects of them to `tune.space`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from raymeta.config.base import StrictModel, load_settings, parse_scalar, set_path
from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError


class Distribution(StrictModel):
    """How one value varies: exactly one of these, e.g. `{loguniform: [0.001, 1]}`."""

    loguniform: tuple[float, float] | None = None
    """A real number between two positive bounds, even on a log scale."""

    uniform: tuple[float, float] | None = None
    """A real number between two bounds."""

    randint: tuple[int, int] | None = None
    """A whole number between two bounds, both included."""

    choice: tuple[Any, ...] | None = None
    """One of these values."""

    @field_validator("choice")
    @classmethod
    def _numbers_as_meant(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is None:
            return None
        # YAML reads 1e-3 as text
        return tuple(parse_scalar(v) if isinstance(v, str) else v for v in values)

    @model_validator(mode="after")
    def _is_one(self) -> "Distribution":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(type(self).model_fields)} is needed, {len(given)} given"
            )
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice has nothing to choose from")
            return self
        low, high = self.bounds
        if not low < high:
            raise ValueError(
                f"{given[0]} needs a lower bound below the upper, not {low} and {high}"
            )
        if self.loguniform is not None and low <= 0:
            raise ValueError(f"loguniform needs bounds above zero, not {low}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of a range; not for `choice`."""
        bounds = self.loguniform or self.uniform or self.randint
        assert bounds is not None
        return bounds

    @property
    def is_log(self) -> bool:
        return self.loguniform is not None

    def extremes(self) -> tuple[Any, ...]:
        """The values that must be valid if all are: both bounds, or each choice."""
        return self.choice if self.choice is not None else self.bounds


class SchedulerConfig(StrictModel):
    """ASHA (Li et al. 2020): trials that lag behind at a rung end there."""

    grace_validations: PositiveInt = 4
    """Validations that every trial gets before it can be ended."""

    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many trials passes a rung."""


class SweepConfig(StrictModel):
    """An experiment file, what varies in it, and how much is tried."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Names the default output folder and the new experiment."""

    experiment: str
    """The experiment file, relative to the sweep's."""

    vary: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Path of a value in the experiment -> how it varies, e.g. `algorithm.inner_lr`."""

    fixed: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Path -> value that every trial has instead of the experiment's."""

    num_samples: PositiveInt = 16
    """Trials in all."""

    max_concurrent_trials: PositiveInt = 2
    """Trials at a time; fewer where the CPUs do not reach."""

    workers_per_trial: PositiveInt = 1
    """1 trains in the trial's own process; more start a nested Ray Train run for each trial."""

    scheduler: SchedulerConfig | None = SchedulerConfig()
    """Early stopping of trials; null lets each run to its end."""

    search: Literal["random", "optuna"] = "random"
    """`random` draws independently; `optuna` (an optional package) learns from earlier trials."""

    seed: NonNegativeInt = 0
    """Of the draws; the experiment keeps its own."""

    @field_validator("vary", "fixed", mode="before")
    @classmethod
    def _paths(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        # `--set vary.algorithm.inner_lr.uniform=[0, 1]` arrives nested
        return _flatten(values, keep_last=info.field_name == "vary")

    @model_validator(mode="after")
    def _no_path_twice(self) -> "SweepConfig":
        if both := sorted(set(self.vary) & set(self.fixed)):
            raise ValueError(f"{', '.join(both)} both varies and is fixed")
        return self


def load_sweep(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple[SweepConfig, ExperimentConfig]:
    """A sweep file and the experiment that it varies, `fixed` applied; every corner is valid.

    Raises:
        ConfigError: a file, path, bound or choice is wrong, which no trial has to find out.
    """
    sweep = load_settings(SweepConfig, path, overrides)
    base = load_settings(ExperimentConfig, Path(path).parent / sweep.experiment)
    base = experiment_with(base, sweep.fixed, source=f"{path}, fixed")
    # with a choice of components, a path may belong to one of them: each is tried with the first
    # value of the others
    first = {name: way.extremes()[0] for name, way in sweep.vary.items()}
    for name, way in sweep.vary.items():
        for value in way.extremes():
            experiment_with(base, {**first, name: value}, source=f"{path}, vary {name}")
    return sweep, base


def experiment_with(
    base: ExperimentConfig, values: dict[str, Any], *, source: str
) -> ExperimentConfig:
    """`base` with `path -> value` replaced, validated as a file is.

    What a named part (an algorithm, a model) has by default is left to its default, so that the
    name can vary among parts that have other settings.
    """
    merged = base.model_dump(mode="json")
    for name, part in merged.items():
        if isinstance(part, dict) and "name" in part:
            chosen = getattr(base, name).model_dump(mode="json", exclude_defaults=True)
            merged[name] = {"name": part["name"], **chosen}
    for path, value in values.items():
        if _is_section(merged, path):
            raise ConfigError(
                f"{source}: '{path}' is a section, not a value.",
                remedy="Name the values inside it.",
            )
        set_path(merged, path, value)
    return ExperimentConfig.parse(merged, source=source)


def _flatten(values: dict[str, Any], *, keep_last: bool, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `a.b.c` keys; with `keep_last`, the innermost mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        deeper = isinstance(value, dict) and (
            not keep_last or any(isinstance(inner, dict) for inner in value.values())
        )
        if deeper:
            flat |= _flatten(value, keep_last=keep_last, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_section(values: dict[str, Any], path: str) -> bool:
    node: Any = values
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return isinstance(node, dict)
