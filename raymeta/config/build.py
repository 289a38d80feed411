"""The one table from names in a config to objects; components themselves take plain arguments."""

from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.config.experiment import AlgorithmConfig, ExperimentConfig
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_split import TaskSplit
from raymeta.models.cooccurrence import Cooccurrence, ridge_cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.types import Params

ALGORITHMS = {
    "maml": presets.maml,
    "fomaml": presets.fomaml,
    "anil": presets.anil,
    "meta_sgd": presets.meta_sgd,
}


def build_algorithm(experiment: ExperimentConfig, split: TaskSplit) -> GradientBased:
    """The learner of an experiment, its tables counted on the training users."""
    matrix = InteractionMatrix.from_histories(
        split.train, num_items=len(split.catalogue), positive_types=split.positive_types
    )
    start = ridge_cooccurrence(
        matrix.users_items, dim=experiment.model.dim, regularisation=experiment.model.regularisation
    )
    return _algorithm(experiment.algorithm, start)


def restore_algorithm(experiment: ExperimentConfig, tables: Params) -> GradientBased:
    """The learner of an artifact, from the tables it carries."""
    start = Cooccurrence(tables["item_vectors"], tables["item_prior"])
    return _algorithm(experiment.algorithm, start)


def _algorithm(config: AlgorithmConfig, start: Cooccurrence) -> GradientBased:
    make = ALGORITHMS[config.name]
    model = Factorization(start)
    return make(model, inner_lr=config.inner_lr, num_inner_steps=config.num_inner_steps)
