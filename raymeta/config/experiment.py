"""What one training run is: data, model, algorithm, training. Every field that changes a result."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raymeta.config.algorithms import AlgorithmConfig, CaviaConfig
from raymeta.config.base import StrictModel
from raymeta.config.data import DataConfig
from raymeta.config.models import FactorizationConfig, ModelConfig, PreferenceMlpConfig
from raymeta.config.scenario import (
    RecommendConfig,
    ScenarioConfig,
    SearchConfig,
    SeveralConfig,
    SingleScenario,
)


class TrainingConfig(StrictModel):
    """The outer loop."""

    tasks_per_batch: PositiveInt = 64
    """Users an outer step, summed over workers."""

    max_outer_steps: NonNegativeInt = 200
    """The run ends here if early stopping has not ended it."""

    outer_lr: PositiveFloat = 0.03
    """Step size of the outer Adam."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay of the outer Adam."""

    max_gradient_norm: PositiveFloat = 10.0
    """The mean meta-gradient is scaled down to this norm."""

    validate_every: PositiveInt = 25
    """Outer steps between validations; a checkpoint is written at each."""

    patience: PositiveInt = 6
    """Validations without a better mean over support sizes before the run stops."""

    num_workers: PositiveInt = 1
    """Ray Train workers; each holds a disjoint shard of the users."""

    use_gpu: bool | None = None
    """One GPU a worker (nccl); not given: if the cluster has enough of them."""


class ExperimentConfig(StrictModel):
    """One run, complete: what `raymeta train` reads and an artifact records."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """The run's name; also its folder under `runs/` unless `--out` says otherwise."""

    seed: NonNegativeInt = 0
    """The seed of every generator of the run."""

    scenario: ScenarioConfig = RecommendConfig()
    """What is scored, against what it is judged, and by which metric the run stops."""

    data: DataConfig = DataConfig()
    """Data, tasks and split."""

    model: ModelConfig = FactorizationConfig()
    """What is adapted."""

    algorithm: AlgorithmConfig = CaviaConfig()
    """How it is adapted."""

    training: TrainingConfig = TrainingConfig()
    """The outer loop."""

    @property
    def scenarios(self) -> tuple[SingleScenario, ...]:
        """What the run is for, one by one."""
        return self.scenario.of if isinstance(self.scenario, SeveralConfig) else (self.scenario,)

    @property
    def search(self) -> SearchConfig | None:
        """How searches are made; None where the run has none."""
        return next((one for one in self.scenarios if isinstance(one, SearchConfig)), None)

    def alone(self) -> "tuple[ExperimentConfig, ...]":
        """The same run of each of several scenarios alone; none where there is one already."""
        if not isinstance(self.scenario, SeveralConfig):
            return ()
        return tuple(self.model_copy(update={"scenario": one}) for one in self.scenarios)

    @model_validator(mode="after")
    def _scenario_fits(self) -> "ExperimentConfig":
        if self.scenario.name in ("search", "several") and self.model.name != "factorization":
            raise ValueError(f"the scenario {self.scenario.name} needs model.name: factorization")
        if self.algorithm.name == "ridge" and self.model.name != "rating_regression":
            raise ValueError("algorithm ridge needs a model with a linear head: rating_regression")
        ads = self.scenario.name == "ads"
        if ads != (self.data.unit == "impressions") or ads != (self.model.name == "ctr"):
            raise ValueError(
                "scenario ads goes with data.unit impressions and model ctr, and they with it"
            )
        if self.scenario.name == "ratings" and not self._gives_ratings():
            raise ValueError(
                "the scenario ratings needs data.unit items and a model that gives ratings: "
                "rating_regression, or preference_mlp with feedback ratings"
            )
        if self.data.cold_items and self.scenario.name != "ratings":
            raise ValueError("data.cold_items needs the scenario ratings")
        intent = self.scenario.name == "intent"
        model = self.model.name == "purchase_intent"
        if intent != (self.data.intent is not None) or intent != model:
            raise ValueError(
                "scenario intent goes with data.intent and model purchase_intent, and they with it"
            )
        if intent and self.data.unit != "visits":
            raise ValueError("scenario intent needs data.unit: visits")
        if intent and self.data.support_events not in (None, self.data.positive_events):
            raise ValueError("scenario intent counts positive events alone: no data.support_events")
        return self

    def _gives_ratings(self) -> bool:
        if self.data.unit != "items":
            return False
        if isinstance(self.model, PreferenceMlpConfig):
            return self.model.feedback == "ratings"
        return self.model.name == "rating_regression"
