"""raymeta: recommendations that fit a new shopper after a handful of events, on Ray.

The names below are the public API; everything else is imported from the module that owns it.
Importing the package imports nothing heavy: a name is loaded when it is first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymeta.algorithms.base import MetaAlgorithm as MetaAlgorithm
    from raymeta.algorithms.gradient_based import GradientBased as GradientBased
    from raymeta.algorithms.presets import anil as anil
    from raymeta.algorithms.presets import fomaml as fomaml
    from raymeta.algorithms.presets import maml as maml
    from raymeta.algorithms.presets import meta_sgd as meta_sgd
    from raymeta.artifact import Artifact as Artifact
    from raymeta.artifact import load_artifact as load_artifact
    from raymeta.config.base import load_settings as load_settings
    from raymeta.config.experiment import ExperimentConfig as ExperimentConfig
    from raymeta.data.events import History as History
    from raymeta.data.events import support_from_events as support_from_events
    from raymeta.data.prepare import prepare as prepare
    from raymeta.errors import RaymetaError as RaymetaError
    from raymeta.serve.app import build_app as build_app
    from raymeta.serve.local import serve_artifact as serve_artifact
    from raymeta.train.run import train_in_process as train_in_process
    from raymeta.train.trainer import fit as fit
    from raymeta.types import MetaGradient as MetaGradient
    from raymeta.types import TaskBatch as TaskBatch

_MODULE_OF = {
    "Artifact": "raymeta.artifact",
    "ExperimentConfig": "raymeta.config.experiment",
    "GradientBased": "raymeta.algorithms.gradient_based",
    "History": "raymeta.data.events",
    "MetaAlgorithm": "raymeta.algorithms.base",
    "MetaGradient": "raymeta.types",
    "RaymetaError": "raymeta.errors",
    "TaskBatch": "raymeta.types",
    "anil": "raymeta.algorithms.presets",
    "build_app": "raymeta.serve.app",
    "fit": "raymeta.train.trainer",
    "fomaml": "raymeta.algorithms.presets",
    "load_artifact": "raymeta.artifact",
    "load_settings": "raymeta.config.base",
    "maml": "raymeta.algorithms.presets",
    "meta_sgd": "raymeta.algorithms.presets",
    "prepare": "raymeta.data.prepare",
    "serve_artifact": "raymeta.serve.local",
    "support_from_events": "raymeta.data.events",
    "train_in_process": "raymeta.train.run",
}

__all__ = [
    "Artifact",
    "ExperimentConfig",
    "GradientBased",
    "History",
    "MetaAlgorithm",
    "MetaGradient",
    "RaymetaError",
    "TaskBatch",
    "anil",
    "build_app",
    "fit",
    "fomaml",
    "load_artifact",
    "load_settings",
    "maml",
    "meta_sgd",
    "prepare",
    "serve_artifact",
    "support_from_events",
    "train_in_process",
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
