"""raymeta: recommendations that fit a new shopper after a handful of events, on Ray.

The names below are the public API; everything else is imported from the module that owns it.
Importing the package imports nothing heavy: a name is loaded when it is first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymeta.config.base import load_settings as load_settings
    from raymeta.config.experiment import ExperimentConfig as ExperimentConfig
    from raymeta.data.events import History as History
    from raymeta.data.events import support_from_events as support_from_events
    from raymeta.errors import RaymetaError as RaymetaError
    from raymeta.types import MetaGradient as MetaGradient
    from raymeta.types import TaskBatch as TaskBatch

_MODULE_OF = {
    "ExperimentConfig": "raymeta.config.experiment",
    "History": "raymeta.data.events",
    "MetaGradient": "raymeta.types",
    "RaymetaError": "raymeta.errors",
    "TaskBatch": "raymeta.types",
    "load_settings": "raymeta.config.base",
    "support_from_events": "raymeta.data.events",
}

__all__ = [
    "ExperimentConfig",
    "History",
    "MetaGradient",
    "RaymetaError",
    "TaskBatch",
    "load_settings",
    "support_from_events",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return importlib.metadata.version("raymeta")
        except importlib.metadata.PackageNotFoundError:
            return "0+source"  # run from a checkout that was not installed
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'raymeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF, "__version__"])
