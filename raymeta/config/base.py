"""What every settings model shares: frozen, unknown keys refused, read from YAML with `extends`.

Leaves the meaning of fields to the models, and the making of objects to `config.build`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from raymeta.errors import ConfigError


class StrictModel(BaseModel):
    """A frozen settings model that refuses keys it does not know; field docstrings are its help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str) -> Self:
        """Validates `values`; a `ConfigError` names `source`, the key path and the bad value."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise explain(error, cls, values, source) from None


ModelT = TypeVar("ModelT", bound=StrictModel)


def load_settings(kind: type[ModelT], path: str | Path, overrides: Sequence[str] = ()) -> ModelT:
    """Reads a YAML file into `kind`, after `extends:` and `--set path=value` overrides."""
    values = load_yaml(Path(path))
    for override in overrides:
        _apply_override(values, override)
    return kind.parse(values, source=str(path))


def load_yaml(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML mapping with `extends: other.yaml` (relative to the file) merged below it."""
    if path in _seen:
        raise ConfigError(
            f"{path} extends itself by way of {_seen[-1]}.", remedy="Remove one `extends:`."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no settings file {path}.", remedy="Check the path; it is read as given."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid YAML: {error}", remedy="Correct the file."
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds {type(values).__name__}, not a mapping of settings.",
            remedy="Write `key: value` lines.",
        )
    parent = values.pop("extends", None)
    if parent is None:
        return values
    return merge(load_yaml(path.parent / str(parent), (*_seen, path)), values)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, nested mappings merged; a changed `name` replaces its whole section."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        same_kind = (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        )
        merged[key] = merge(old, value) if same_kind else value  # type: ignore[arg-type]
    return merged


def set_path(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets `a.b.c` in nested mappings, in place, making the levels that are missing.

    Raises:
        ConfigError: `a` or `a.b` is a value, and has nothing below it.
    """
    *parents, leaf = path.split(".")
    for depth, key in enumerate(parents, start=1):
        below = values.get(key) or {}
        if not isinstance(below, Mapping):
            raise ConfigError(
                f"'{'.'.join(parents[:depth])}' is {below!r}, so there is no '{path}'.",
                remedy="Correct the path.",
            )
        values[key] = dict(below)
        values = values[key]
    values[leaf] = value


def explain(
    error: ValidationError, kind: type[BaseModel], values: Mapping[str, Any], source: str
) -> ConfigError:
    """The first thing that is wrong with `values`, as key path, value and remedy."""
    first = error.errors()[0]
    path = ".".join(_written(first["loc"], values))
    if first["type"] == "extra_forbidden":
        known = _keys_beside(kind, [str(part) for part in first["loc"]])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
        return ConfigError(f"{source}: unknown key '{path}'.", remedy=remedy)
    if first["type"] == "missing":
        return ConfigError(f"{source}: '{path}' is missing.", remedy="Add it.")
    if first["type"] == "union_tag_invalid":
        return _unknown_name(source, path, first["ctx"])
    # what a validator of ours says is whole; pydantic puts words of its own before it
    said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    is_section = isinstance(first["input"], Mapping) and len(first["input"]) > 0
    where = f"'{path}': " if is_section else f"'{path}' is {first['input']!r}: "
    return ConfigError(f"{source}: {where if path else ''}{said}.", remedy="Correct this value.")


def _unknown_name(source: str, path: str, facts: Mapping[str, str]) -> ConfigError:
    """A section whose `name` or `kind` is none that there is."""
    key, tag = facts["discriminator"].strip("'"), facts["tag"]
    known = [name.strip("'") for name in facts["expected_tags"].split(", ")]
    near = difflib.get_close_matches(tag, known, n=1)
    remedy = f"Did you mean '{near[0]}'?" if near else f"Choose from: {', '.join(known)}."
    return ConfigError(f"{source}: '{path}' has no {key} '{tag}'.", remedy=remedy)


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    if not sign or not path:
        raise ConfigError(
            f"--set {override!r} is not of the form path=value.",
            remedy="Write for example --set training.max_outer_steps=100.",
        )
    set_path(values, path.strip(), parse_scalar(text))


def parse_scalar(text: str) -> Any:
    """A YAML value, with `1e-3` read as the number that people mean (YAML 1.1 reads a string)."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"{text!r} is not a YAML value.", remedy="Close its brackets and quotes."
        ) from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _written(location: Sequence[str | int], values: Any) -> Iterable[str]:
    """A location without the tags of discriminated unions, which are no keys of a file."""
    for part in location[:-1]:
        if isinstance(values, Mapping):
            if part not in values:
                continue
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part]
        yield str(part)
    yield from map(str, location[-1:])


def _keys_beside(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at the level of the last part of `path`, unions included."""
    kinds: list[type[BaseModel]] = [kind]
    for part in path[:-1]:
        deeper = [m for k in kinds if part in k.model_fields for m in _models_in(k, part)]
        # the tag of a discriminated union is a part of the path without being a key
        tagged = [k for k in kinds if part in (f.default for f in k.model_fields.values())]
        kinds = deeper or tagged or kinds
    return sorted({name for k in kinds for name in k.model_fields})


def _models_in(kind: type[BaseModel], field: str) -> Iterable[type[BaseModel]]:
    annotation = kind.model_fields[field].annotation
    pending = [annotation]
    while pending:
        item = pending.pop()
        if isinstance(item, type) and issubclass(item, BaseModel):
            yield item
        pending.extend(getattr(item, "__args__", ()))
