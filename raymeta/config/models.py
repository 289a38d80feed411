"""The models that there are, and what each is told."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raymeta.config.base import StrictModel
from raymeta.config.pretraining import PretrainingConfig


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

    place_dim: PositiveInt = 128
    """Columns of what places sell that are served, where `data.max_places` lets adapting see them;
    a user's state grows by 4 x place_dim bytes."""

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

    vector_dim: NonNegativeInt = 0
    """Width of item vectors fitted on what training users rated, beside the items' features."""

    vector_regularisation: PositiveFloat = 60.0
    """Precision of those vectors."""


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
