"""Putting small layers into a module: the part that LoRA, FiLM and context share."""

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from raymeta.errors import ConfigError


def replaced(
    module: nn.Module,
    layers: Sequence[str],
    kinds: tuple[type[nn.Module], ...],
    wrap: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """A copy of `module` with its matching layers wrapped.

    Args:
        module: left as it is.
        layers: globs over the names of submodules; only those of `kinds` count.
        kinds: what can be wrapped.
        wrap: layer -> its replacement.

    Raises:
        ConfigError: a glob matches no layer of these kinds.
    """
    result = copy.deepcopy(module)
    candidates = {n: m for n, m in result.named_modules() if n and isinstance(m, kinds)}
    chosen: dict[str, nn.Module] = {}
    for glob in layers:
        found = {n: m for n, m in candidates.items() if fnmatchcase(n, glob)}
        if not found:
            raise ConfigError(
                f"{glob!r} matches no {' or '.join(k.__name__ for k in kinds)} of the module; it "
                f"has {', '.join(candidates) or 'none'}.",
                remedy="Name one of its layers, or a glob over them.",
            )
        chosen |= found
    for name, layer in chosen.items():
        parent, _, leaf = name.rpartition(".")
        setattr(result.get_submodule(parent), leaf, wrap(layer))
    return result
