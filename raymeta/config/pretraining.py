"""How the Transformer of `model.name: sequence` is pretrained."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raymeta.config.base import StrictModel

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class PretrainingConfig(StrictModel):
    """Next items of training users after a support of any of the support sizes."""

    loss: Literal["ndcg", "softmax"] = "softmax"
    """`ndcg`: soft nDCG@10 of the list. `softmax`: over all later items, its tail included."""

    beside_base: bool = True
    """Learn what is missing in the scores of `model.base`, which are added before the loss. If not,
    only the popularity is added, and the Transformer learns all the rest."""

    num_sampled: NonNegativeInt = 0
    """With `softmax`: later items are told from so many others, drawn by popularity, instead of the
    whole catalogue (0). The cost of a step then does not grow with the catalogue."""

    users_per_batch: PositiveInt = 64
    """Users a step and worker, all at one support size."""

    max_steps: NonNegativeInt = 1500
    """Pretraining ends here if early stopping has not ended it."""

    learning_rate: PositiveFloat = 0.001
    """Step size of Adam."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    """Decoupled weight decay; sampled tables of items have none."""

    dropout: Rate = 0.2
    """Share of activations that are dropped."""

    row_dropout: Rate = 0.2
    """Share of support rows that are not shown."""

    validate_every: PositiveInt = 128
    """Steps between validations; a checkpoint is written at each."""

    patience: PositiveInt = 4
    """Validations without a better mean over support sizes before pretraining stops."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: products in half precision (autocast), as a GPU wants; weights stay float32."""

    recompute: bool = False
    """Compute a block's activations again in the backward pass instead of keeping them."""

    @model_validator(mode="after")
    def _consistent(self) -> "PretrainingConfig":
        if self.num_sampled and (self.loss != "softmax" or self.beside_base):
            raise ValueError(
                "num_sampled needs loss: softmax and beside_base: false, since a list's loss and "
                "the scores of the base need the whole catalogue"
            )
        return self
