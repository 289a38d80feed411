"""raymeta: recommendations that fit a new shopper after a handful of events, on Ray.

The names below are the public API; everything else is imported from the module that owns it.
Importing the package imports nothing heavy: a name is loaded when it is first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymeta.adapters.context import with_context as with_context
    from raymeta.adapters.film import with_film as with_film
    from raymeta.adapters.lora import with_lora as with_lora
    from raymeta.algorithms.base import MetaAlgorithm as MetaAlgorithm
    from raymeta.algorithms.gradient_based import GradientBased as GradientBased
    from raymeta.algorithms.outer import meta_train as meta_train
    from raymeta.algorithms.presets import amortised_head as amortised_head
    from raymeta.algorithms.presets import anil as anil
    from raymeta.algorithms.presets import boil as boil
    from raymeta.algorithms.presets import cavia as cavia
    from raymeta.algorithms.presets import fine_tuning as fine_tuning
    from raymeta.algorithms.presets import fomaml as fomaml
    from raymeta.algorithms.presets import imaml as imaml
    from raymeta.algorithms.presets import logistic as logistic
    from raymeta.algorithms.presets import maml as maml
    from raymeta.algorithms.presets import maml_plus_plus as maml_plus_plus
    from raymeta.algorithms.presets import melu as melu
    from raymeta.algorithms.presets import meta_sgd as meta_sgd
    from raymeta.algorithms.presets import neural_process as neural_process
    from raymeta.algorithms.presets import prototypes as prototypes
    from raymeta.algorithms.presets import reptile as reptile
    from raymeta.algorithms.presets import ridge as ridge
    from raymeta.artifact import Artifact as Artifact
    from raymeta.artifact import load_artifact as load_artifact
    from raymeta.client.clients import AsyncClient as AsyncClient
    from raymeta.client.clients import Client as Client
    from raymeta.config.base import load_settings as load_settings
    from raymeta.config.experiment import ExperimentConfig as ExperimentConfig
    from raymeta.data.events import History as History
    from raymeta.data.events import support_from_events as support_from_events
    from raymeta.data.prepare import prepare as prepare
    from raymeta.data.worlds.base import batches as batches
    from raymeta.data.worlds.sinusoids import Sinusoids as Sinusoids
    from raymeta.errors import RaymetaError as RaymetaError
    from raymeta.inner.losses import cross_entropy as cross_entropy
    from raymeta.inner.losses import squared_error as squared_error
    from raymeta.models.module import ModuleModel as ModuleModel
    from raymeta.serve.app import build_app as build_app
    from raymeta.serve.local import serve_artifact as serve_artifact
    from raymeta.train.run import train_in_process as train_in_process
    from raymeta.train.trainer import fit as fit
    from raymeta.types import MetaGradient as MetaGradient
    from raymeta.types import TaskBatch as TaskBatch

_MODULE_OF = {
    "Artifact": "raymeta.artifact",
    "AsyncClient": "raymeta.client.clients",
    "Client": "raymeta.client.clients",
    "ExperimentConfig": "raymeta.config.experiment",
    "GradientBased": "raymeta.algorithms.gradient_based",
    "History": "raymeta.data.events",
    "MetaAlgorithm": "raymeta.algorithms.base",
    "MetaGradient": "raymeta.types",
    "ModuleModel": "raymeta.models.module",
    "RaymetaError": "raymeta.errors",
    "Sinusoids": "raymeta.data.worlds.sinusoids",
    "TaskBatch": "raymeta.types",
    "amortised_head": "raymeta.algorithms.presets",
    "anil": "raymeta.algorithms.presets",
    "batches": "raymeta.data.worlds.base",
    "boil": "raymeta.algorithms.presets",
    "build_app": "raymeta.serve.app",
    "cavia": "raymeta.algorithms.presets",
    "cross_entropy": "raymeta.inner.losses",
    "fine_tuning": "raymeta.algorithms.presets",
    "fit": "raymeta.train.trainer",
    "fomaml": "raymeta.algorithms.presets",
    "imaml": "raymeta.algorithms.presets",
    "load_artifact": "raymeta.artifact",
    "load_settings": "raymeta.config.base",
    "logistic": "raymeta.algorithms.presets",
    "maml": "raymeta.algorithms.presets",
    "maml_plus_plus": "raymeta.algorithms.presets",
    "melu": "raymeta.algorithms.presets",
    "meta_sgd": "raymeta.algorithms.presets",
    "meta_train": "raymeta.algorithms.outer",
    "neural_process": "raymeta.algorithms.presets",
    "prepare": "raymeta.data.prepare",
    "prototypes": "raymeta.algorithms.presets",
    "reptile": "raymeta.algorithms.presets",
    "ridge": "raymeta.algorithms.presets",
    "serve_artifact": "raymeta.serve.local",
    "squared_error": "raymeta.inner.losses",
    "support_from_events": "raymeta.data.events",
    "train_in_process": "raymeta.train.run",
    "with_context": "raymeta.adapters.context",
    "with_film": "raymeta.adapters.film",
    "with_lora": "raymeta.adapters.lora",
}

__all__ = [
    "Artifact",
    "AsyncClient",
    "Client",
    "ExperimentConfig",
    "GradientBased",
    "History",
    "MetaAlgorithm",
    "MetaGradient",
    "ModuleModel",
    "RaymetaError",
    "Sinusoids",
    "TaskBatch",
    "amortised_head",
    "anil",
    "batches",
    "boil",
    "build_app",
    "cavia",
    "cross_entropy",
    "fine_tuning",
    "fit",
    "fomaml",
    "imaml",
    "load_artifact",
    "load_settings",
    "logistic",
    "maml",
    "maml_plus_plus",
    "melu",
    "meta_sgd",
    "meta_train",
    "neural_process",
    "prepare",
    "prototypes",
    "reptile",
    "ridge",
    "serve_artifact",
    "squared_error",
    "support_from_events",
    "train_in_process",
    "with_context",
    "with_film",
    "with_lora",
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
