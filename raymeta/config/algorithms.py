"""The algorithms that there are, and what each is told."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from raymeta.config.base import StrictModel


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
