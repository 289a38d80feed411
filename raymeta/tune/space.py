"""From a sweep's settings to Ray Tune's objects: the search space, the scheduler, the searcher."""

from typing import Any

from raymeta.config.experiment import TrainingConfig
from raymeta.config.sweep import Distribution, SweepConfig
from raymeta.errors import ConfigError

METRIC = "best_score"
"""What trials are compared by: the best validation score so far, a mean over support sizes."""

STEP = "step"
"""What a scheduler counts: outer steps, which a resumed trial goes on counting."""


def search_space(sweep: SweepConfig) -> dict[str, Any]:
    """Path -> Ray Tune domain."""
    return {path: _domain(way) for path, way in sweep.vary.items()}


def scheduler(sweep: SweepConfig, training: TrainingConfig) -> Any:
    """ASHA over outer steps, or first in first out."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    longest = training.max_outer_steps
    if sweep.scheduler is None or longest == 0:
        return FIFOScheduler()
    grace = sweep.scheduler.grace_validations * training.validate_every
    return ASHAScheduler(
        time_attr=STEP,
        max_t=longest,
        grace_period=max(1, min(grace, longest)),
        reduction_factor=sweep.scheduler.reduction_factor,
    )


def searcher(sweep: SweepConfig) -> Any:
    """Draws that depend on the sweep's seed only.

    Raises:
        ConfigError: `optuna` is asked for and not installed.
    """
    from ray.tune.search import BasicVariantGenerator

    if sweep.search == "random":
        return BasicVariantGenerator(
            random_state=sweep.seed, max_concurrent=sweep.max_concurrent_trials
        )
    try:
        import optuna  # noqa: F401 - Ray's wrapper asserts where the package is missing
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.optuna import OptunaSearch
    except ImportError:
        raise ConfigError(
            "search: optuna needs a package that is not installed.",
            remedy="pip install 'raymeta[optuna]', or set search to random.",
        ) from None
    return ConcurrencyLimiter(
        OptunaSearch(seed=sweep.seed), max_concurrent=sweep.max_concurrent_trials
    )


def _domain(way: Distribution) -> Any:
    from ray import tune

    if way.choice is not None:
        return tune.choice(list(way.choice))
    low, high = way.bounds
    if way.randint is not None:
        return tune.randint(int(low), int(high) + 1)  # Ray leaves the upper end out
    return tune.loguniform(low, high) if way.is_log else tune.uniform(low, high)
