"""What one training run is: data, model, algorithm, training. Every field that changes a result."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raymeta.config.base import StrictModel
from raymeta.config.pretraining import PretrainingConfig
from raymeta.config.scenario import RecommendConfig, ScenarioConfig

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class SplitConfig(StrictModel):
    """How users are divided; each part is a salted hash of the user id, so it never moves."""

    kind: Literal["users", "time"] = "users"
    """`users`: K folds over users. `time`: test on users who arrive after a date."""

    num_folds: Annotated[int, Field(ge=2)] = 5
    """Folds over the users that are not locked."""

    fold: NonNegativeInt = 0
    """The fold whose users are the test users of this run."""

    locked_fraction: Fraction = 0.1
    """Users kept aside for a release: scored once, never looked at in between."""

    validation_fraction: Fraction = 0.15
    """Of the users that are neither locked nor test: those that stop and tune the run."""

    boundary: str | None = None
    """With `time`: the ISO-8601 date that separates training events from arriving users."""

    @model_validator(mode="after")
    def _consistent(self) -> "SplitConfig":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} does not exist in {self.num_folds} folds")
        if (self.kind == "time") != (self.boundary is not None):
            raise ValueError("boundary is needed with kind: time, and only there")
        return self


class FeedbackConfig(StrictModel):
    """What comes of an impression: each is joined to the latest impression of its item."""

    click: str = "click"
    """The event type of a click."""

    conversion: str = "purchase"
    """The event type of a conversion, which counts where its impression was clicked."""


class IntentRowsConfig(StrictModel):
    """What is asked of a user: whether a category is bought within a horizon."""

    category_column: str = "product_category"
    """The item column that names the category."""

    num_categories: PositiveInt = 40
    """Those that most training users buy in; an item of another has no probability."""

    horizon_days: PositiveFloat = 7.0
    """The purchase counts within so many days after the moment."""

    max_moments: PositiveInt = 32
    """Adapting sees the last so many moments whose horizon has passed."""


class DataConfig(StrictModel):
    """Which events are positive, which users are tasks, and how a task is cut in two."""

    path: str | None = None
    """The folder that `raymeta prepare` wrote; `--data` overrides it."""

    unit: Literal["visits", "items", "impressions"] = "visits"
    """What support size counts: whole visits (baskets, sessions), single items, or what a user was
    shown."""

    positive_events: tuple[str, ...] = ("purchase",)
    """Event types that make an item relevant in a query."""

    support_events: tuple[str, ...] | None = None
    """Event types that adapting sees; the positive ones if not given."""

    min_value: float | None = None
    """Events with a smaller value (stars, say) are left out, in training, evaluation and serving;
    events without one count. Not given: all events count."""

    min_item_users: PositiveInt = 10
    """An item is in the catalogue if at least so many training users have a positive event on it.
    Counted for all eligible users and scaled to the number of training users."""

    min_units: PositiveInt = 4
    """A user is a task with at least so many visits (or items, with `unit: items`)."""

    max_units: PositiveInt | None = None
    """A user with more is left out, in training too; not given: nobody is. For protocols of
    others that leave busy users out."""

    feedback: FeedbackConfig | None = None
    """With `unit: impressions`, and only there: adapting sees impressions and what came of them."""

    intent: IntentRowsConfig | None = None
    """For the scenario intent, and only there: adapting sees what came true of a user's moments."""

    max_support_events: PositiveInt = 512
    """Adapting sees the last so many events: the retained view, in training and serving alike."""

    user_features: bool = False
    """Adapting also sees the columns of the users table, as a model that reads them wants."""

    new_item_text: tuple[str, ...] = ()
    """Item columns whose sentence vectors (the extra `text`) tell, beside the features, what an
    item is that training never saw; features alone if none are named."""

    support_sizes: tuple[NonNegativeInt, ...] = (0, 1, 2, 3, 5, 10)
    """Support sizes of the evaluation curve, in units."""

    split: SplitConfig = SplitConfig()
    """How users are divided into training, validation, test and locked."""

    @model_validator(mode="after")
    def _impressions_have_feedback(self) -> "DataConfig":
        if (self.unit == "impressions") != (self.feedback is not None):
            raise ValueError("feedback is needed with unit: impressions, and only there")
        return self


class FactorizationConfig(StrictModel):
    """score(u, j) = prior_j + <context_u, item vector_j>; started from co-occurrences."""

    name: Literal["factorization"] = "factorization"
    """The model's name."""

    dim: PositiveInt = 256
    """Width of item vectors and of a user's context; a user's state is 4 x dim bytes."""

    regularisation: PositiveFloat = 3000.0
    """Ridge of the co-occurrence start, in users, from where it is learned: larger trusts rare
    pairs less."""

    ridge_by_size: float | None = None
    """How the ridge follows the number of rows n of a support, from where it is learned: it is
    regularisation x (n / 32)^ridge_by_size. Not given: one ridge for all."""

    item_exponent: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Items are divided by this power of how many users have them before co-occurrences are
    counted; .5 and a large ridge make the start item neighbours by cosine, as small logs want."""

    outer_loss: Literal["ndcg", "softmax"] = "ndcg"
    """`ndcg`: soft nDCG@10 of the list. `softmax`: over all later items, its tail included."""


class PreferenceMlpConfig(StrictModel):
    """score(u, j) = baseline_j + MLP(features of u, features of j): MeLU's estimator."""

    name: Literal["preference_mlp"] = "preference_mlp"
    """The model's name."""

    feedback: Literal["implicit", "ratings"] = "implicit"
    """`implicit`: tell what was chosen from other items. `ratings`: predict an event's value; with
    the scenario `ratings`."""

    baseline: Literal["item", "none"] = "item"
    """What is added for each item: its mean rating or log-popularity; `none`: the same for all."""

    embedding_dim: PositiveInt = 16
    """Width of the embedding of each feature."""

    hidden_dim: PositiveInt = 64
    """Width of both hidden layers."""

    num_noise: PositiveInt = 256
    """With `implicit`: how many others a user's items are told from, by hashes."""

    item_ids: bool = False
    """Each item has an embedding of its own id as well, beside those of its features."""

    fast_first_layer: bool = False
    """Adapt the first layer's item half as well, as MeLU does; a larger state a user."""


class RatingRegressionConfig(StrictModel):
    """A user's ratings by a Bayesian linear regression whose prior is meta-learned."""

    name: Literal["rating_regression"] = "rating_regression"
    """The model's name."""

    item_shrinkage: PositiveFloat = 6.0
    """Ratings after which an item's mean is half believed, from where it is learned."""

    outer_loss: Literal["error", "order"] = "error"
    """`error`: absolute error of the ratings. `order`: of two items, which is rated higher."""


class SequenceConfig(StrictModel):
    """score(u, j) = that of a factorization + gate x <summary of u's events, vector of j>, the
    summary by a Transformer that is pretrained on the training users and then frozen."""

    name: Literal["sequence"] = "sequence"
    """The model's name."""

    base: FactorizationConfig = FactorizationConfig()
    """What the Transformer adds to."""

    item_dim: PositiveInt = 64
    """Width of the Transformer's item vectors; a user's state holds one such vector."""

    dim: PositiveInt = 64
    """Width of the Transformer."""

    num_layers: PositiveInt = 2
    """Its blocks."""

    num_heads: PositiveInt = 2
    """Heads of attention; they divide `dim`."""

    num_pair_rows: NonNegativeInt = 0
    """Rows of a table of hashed pairs of item features (a brand within a category); 0: none."""

    own: Literal["events", "context", "lora", "film"] = "events"
    """What of the Transformer is a user's own. `events`: only what it reads. `context`: a vector
    added to the summary as well. `lora`, `film`: parameters in its layers."""

    lora_rank: PositiveInt = 4
    """Rank of LoRA's change of a layer."""

    pretraining: PretrainingConfig = PretrainingConfig()
    """How it is pretrained."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "SequenceConfig":
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide dim {self.dim}")
        return self


class CtrConfig(StrictModel):
    """Clicks and conversions of impressions: products of embeddings, a deep part, two heads."""

    name: Literal["ctr"] = "ctr"
    """The model's name."""

    embedding_dim: PositiveInt = 16
    """Width of the embedding of each feature; also of the vector that is a user's own."""

    hidden_dim: PositiveInt = 32
    """Width of the deep part."""


class PurchaseIntentConfig(StrictModel):
    """Purchases by category: a user's counts so far, a small network, a head of the user's own."""

    name: Literal["purchase_intent"] = "purchase_intent"
    """The model's name."""

    embedding_dim: PositiveInt = 16
    """Width of a category's vector; also of the vector that is a user's own."""

    hidden_dim: PositiveInt = 32
    """Width of the hidden layer."""


ModelConfig = Annotated[
    FactorizationConfig
    | PreferenceMlpConfig
    | RatingRegressionConfig
    | SequenceConfig
    | CtrConfig
    | PurchaseIntentConfig,
    Field(discriminator="name"),
]


class _InnerLoop(StrictModel):
    """What every algorithm of gradient steps has."""

    inner_lr: PositiveFloat = 0.5
    """Step size of the inner loop; the start value where it is learned."""

    num_inner_steps: Annotated[int, Field(ge=0, le=100)] = 1
    """Gradient steps on a user's support."""

    max_inner_gradient_norm: PositiveFloat | None = None
    """A user's inner gradient is scaled down to this norm; not given: it is not."""

    min_inner_gradient_norm: PositiveFloat | None = None
    """A user's inner loop stops early where its gradient is shorter; not given: it does not."""


class _Optimised(_InnerLoop):
    """An inner loop whose optimiser can be chosen."""

    inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """How an inner step uses the gradient: plainly, by heavy-ball momentum, or Adam's way."""


class _AnyFastSet(StrictModel):
    """An algorithm for any fast set."""

    fast: str | tuple[str, ...] = "all"
    """What each user gets a copy of: all, head, body, context, or globs over parameter names."""


class MamlConfig(_Optimised, _AnyFastSet):
    """MAML (Finn et al. 2017): second order."""

    name: Literal["maml"] = "maml"
    """The algorithm's name."""


class FomamlConfig(_Optimised, _AnyFastSet):
    """First-order MAML: the derivative through the inner gradient is dropped."""

    name: Literal["fomaml"] = "fomaml"
    """The algorithm's name."""


class ReptileConfig(_Optimised, _AnyFastSet):
    """Reptile (Nichol et al. 2018): the start moves towards the adapted weights."""

    name: Literal["reptile"] = "reptile"
    """The algorithm's name."""


class AnilConfig(_Optimised):
    """ANIL (Raghu et al. 2020): only the head is fast."""

    name: Literal["anil"] = "anil"
    """The algorithm's name."""


class BoilConfig(_Optimised):
    """BOIL (Oh et al. 2021): all that is adaptable but the head is fast."""

    name: Literal["boil"] = "boil"
    """The algorithm's name."""


class MetaSgdConfig(_InnerLoop, _AnyFastSet):
    """Meta-SGD (Li et al. 2017): a learned rate per parameter element."""

    name: Literal["meta_sgd"] = "meta_sgd"
    """The algorithm's name."""


class MamlPlusPlusConfig(_InnerLoop, _AnyFastSet):
    """MAML++ (Antoniou et al. 2019): a learned rate a tensor and step, and its annealings."""

    name: Literal["maml_plus_plus"] = "maml_plus_plus"
    """The algorithm's name."""

    second_order_from: NonNegativeInt = 0
    """Outer step before which the meta-gradient is first order."""

    multi_step_until: NonNegativeInt = 0
    """Outer step until which the query loss after every inner step counts."""


class CaviaConfig(_Optimised):
    """CAVIA (Zintgraf et al. 2019): a context is fast, and starts at zero for all."""

    name: Literal["cavia"] = "cavia"
    """The algorithm's name."""


class ImamlConfig(_Optimised, _AnyFastSet):
    """iMAML (Rajeswaran et al. 2019): the meta-gradient by the implicit function theorem."""

    name: Literal["imaml"] = "imaml"
    """The algorithm's name."""

    proximal: PositiveFloat = 1.0
    """Weight of the inner loop's pull to the start."""

    num_cg_iterations: PositiveInt = 5
    """Conjugate-gradient iterations."""

    damping: Annotated[float, Field(ge=0.0)] = 0.0
    """Added to the curvature in that solve; needed where a user's loss is not convex."""


class MeluConfig(_Optimised, _AnyFastSet):
    """MeLU (Lee et al. 2019): MAML on the decision layers, which are what its model adapts."""

    name: Literal["melu"] = "melu"
    """The algorithm's name."""


class FineTuningConfig(_Optimised, _AnyFastSet):
    """Trained on all users pooled, then fine-tuned on each: the baseline."""

    name: Literal["fine_tuning"] = "fine_tuning"
    """The algorithm's name."""


class RidgeConfig(StrictModel):
    """A head solved in closed form on the support (Bertinetto et al. 2019): no inner steps."""

    name: Literal["ridge"] = "ridge"
    """The algorithm's name."""

    penalty: PositiveFloat = 1.0
    """Ridge penalty, from where it is learned."""

    scale: PositiveFloat = 1.0
    """Factor on the head, from where it is learned."""


AlgorithmConfig = Annotated[
    MamlConfig
    | FomamlConfig
    | ReptileConfig
    | AnilConfig
    | BoilConfig
    | MetaSgdConfig
    | MamlPlusPlusConfig
    | CaviaConfig
    | ImamlConfig
    | MeluConfig
    | FineTuningConfig
    | RidgeConfig,
    Field(discriminator="name"),
]


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

    @model_validator(mode="after")
    def _scenario_fits(self) -> "ExperimentConfig":
        if self.scenario.name == "search" and self.model.name != "factorization":
            raise ValueError("the scenario search needs model.name: factorization")
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
