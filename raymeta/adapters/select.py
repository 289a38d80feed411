"""Fast sets by name: what of a model each user gets a copy of."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from raymeta.errors import ConfigError
from raymeta.models.base import TaskModel
from raymeta.types import Params

Fast = str | Sequence[str]
"""`all`, `head`, `body`, `context`, `lora`, `film`, or globs over names (`decision.*`)."""

# Parameters that the modules of this package add, by the ends of their names.
_ADAPTERS = {
    "context": ("context", "*.context"),
    "lora": ("*.lora_a", "*.lora_b"),
    "film": ("*.film_scale", "*.film_shift"),
}


def select(model: TaskModel, fast: Fast) -> frozenset[str]:
    """The names of the model's adaptable parameters that `fast` stands for.

    Raises:
        ConfigError: a pattern matches none of them.
    """
    if fast == "all":
        return model.adaptable
    if fast == "head":
        return model.head
    if fast == "body":
        return _some(model.adaptable - model.head, fast, model)
    patterns = [fast] if isinstance(fast, str) else list(fast)
    chosen: frozenset[str] = frozenset()
    for pattern in patterns:
        globs = _ADAPTERS.get(pattern, (pattern,))
        found = {n for n in model.adaptable if any(fnmatchcase(n, glob) for glob in globs)}
        chosen |= _some(frozenset(found), pattern, model)
    return chosen


def _some(found: frozenset[str], pattern: str, model: TaskModel) -> frozenset[str]:
    if not found:
        raise ConfigError(
            f"The fast set {pattern!r} matches none of the model's adaptable parameters: "
            f"{', '.join(sorted(model.adaptable))}.",
            remedy="Name one of them, a glob over them, or put the adapter into the module first.",
        )
    return found


def state_bytes(params: Params, fast: frozenset[str]) -> int:
    """Bytes of one user's state where `fast` is what differs."""
    return sum(params[name].numel() * params[name].element_size() for name in fast)
