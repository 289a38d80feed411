"""The one table from a scenario's name to what it means."""

from collections.abc import Sequence

from raymeta.config.experiment import ExperimentConfig
from raymeta.data.episodes import Unit
from raymeta.data.task_split import TaskSplit
from raymeta.errors import ConfigError
from raymeta.evaluation.fold import EvaluationSettings
from raymeta.evaluation.scenarios.ads import ADS
from raymeta.evaluation.scenarios.base import Scenario, ScenarioKind
from raymeta.evaluation.scenarios.intent import INTENT
from raymeta.evaluation.scenarios.ratings import RATINGS
from raymeta.evaluation.scenarios.recommend import RECOMMEND
from raymeta.evaluation.scenarios.search import SEARCH
from raymeta.evaluation.scenarios.several import settings_of, several

_SINGLE: dict[str, ScenarioKind] = {
    "recommend": RECOMMEND,
    "search": SEARCH,
    "ads": ADS,
    "ratings": RATINGS,
    "intent": INTENT,
}
SCENARIOS: dict[str, ScenarioKind] = {**_SINGLE, "several": several(_SINGLE)}


def open_scenario(experiment: ExperimentConfig, split: TaskSplit) -> Scenario:
    """The scenario of an experiment, over one split."""
    return SCENARIOS[experiment.scenario.name].open(experiment, split)


def evaluation_settings(
    experiment: ExperimentConfig,
    *,
    support_sizes: Sequence[int] | None = None,
    unit: Unit | None = None,
    repeat: bool = False,
    baselines: Sequence[str] | None = None,
    locked: bool = False,
) -> EvaluationSettings:
    """What is measured: as the experiment says, but for what is given here.

    Raises:
        ConfigError: the scenario has no such baseline, or a support size is below 0.
    """
    known = SCENARIOS[experiment.scenario.name].baselines
    if unknown := [name for name in baselines or () if name not in known]:
        raise ConfigError(
            f"There is no baseline {unknown[0]!r}.", remedy=f"Choose from: {', '.join(known)}."
        )
    config = experiment.data
    return EvaluationSettings(
        support_sizes=tuple(config.support_sizes if support_sizes is None else support_sizes),
        unit=unit or config.unit,
        repeat=repeat or getattr(experiment.scenario, "repeat", False),
        baselines=tuple(known if baselines is None else baselines),
        locked=locked,
    )


def alone_settings(
    experiment: ExperimentConfig, settings: EvaluationSettings
) -> EvaluationSettings:
    """What is measured of a run for one scenario, where `settings` are those of several."""
    (scenario,) = experiment.scenarios
    return settings_of(settings, scenario, _SINGLE)
