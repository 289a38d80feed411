"""Named algorithms: each is a few lines that choose a start, a rule, a fast set and a mode.

A variant is a `dataclasses.replace` of a preset: `replace(maml(model), rule=adam(0.01))`. `fast` is
read by `raymeta.adapters.select`.
"""

from raymeta.adapters.select import Fast, select
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.starts import (
    AmortisedHead,
    AmortisedStart,
    LogisticStart,
    PrototypeStart,
    RidgeStart,
    linear_head,
)
from raymeta.errors import ConfigError
from raymeta.inner.gradient import (
    FirstOrder,
    Implicit,
    Interpolated,
    Unadapted,
    Unrolled,
)
from raymeta.inner.rules import learned_rates, learned_rates_per_layer_and_step, sgd
from raymeta.models.base import HasRows, TaskModel


def maml(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """Model-agnostic meta-learning: every adaptable parameter is fast, second order.

    Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks,
    ICML 2017, algorithm 2.
    """
    return GradientBased(model, sgd(inner_lr), select(model, fast), Unrolled(), num_inner_steps)


def fomaml(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """First-order MAML: as `maml`, with inner gradients held constant (ibid., section 5.2)."""
    return GradientBased(model, sgd(inner_lr), select(model, fast), FirstOrder(), num_inner_steps)


def reptile(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """Reptile: the start moves towards the adapted weights.

    Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018, algorithm 2. All of a
    task's rows belong into its support (see `Interpolated`).
    """
    return GradientBased(model, sgd(inner_lr), select(model, fast), Interpolated(), num_inner_steps)


def anil(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """Almost no inner loop: only the head is fast, second order.

    Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse?, ICLR 2020, section 4.
    """
    return maml(model, inner_lr=inner_lr, num_inner_steps=num_inner_steps, fast="head")


def boil(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """Body only update in the inner loop: all but the head is fast, second order.

    Oh, Yoo, Kim, Yun: BOIL: Towards Representation Change for Few-shot Learning, ICLR 2021, eq. 3.
    """
    return maml(model, inner_lr=inner_lr, num_inner_steps=num_inner_steps, fast="body")


def meta_sgd(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """MAML with a learned rate for each element of each fast parameter.

    Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017, eq. 2.
    """
    rule = learned_rates(inner_lr)
    return GradientBased(model, rule, select(model, fast), Unrolled(), num_inner_steps)


def maml_plus_plus(
    model: TaskModel,
    *,
    inner_lr: float,
    num_inner_steps: int,
    fast: Fast = "all",
    second_order_from: int = 0,
    multi_step_until: int = 0,
) -> GradientBased:
    """MAML with a learned rate a layer and step, multi-step loss, derivative-order annealing.

    Antoniou, Edwards, Storkey: How to train your MAML, ICLR 2019, section 4. The cosine outer rate
    is `raymeta.inner.schedules.cosine`, given to the outer loop. In place of its batch statistics a
    step (and of any batch normalisation, whose result for a row depends on the other rows, so that
    a padded batch would not give a user what it gets alone): group or layer normalisation.

    Args:
        second_order_from: outer step before which the gradient is first order.
        multi_step_until: outer step until which every inner step's query loss counts.
    """
    return GradientBased(
        model,
        learned_rates_per_layer_and_step(inner_lr, num_steps=num_inner_steps),
        select(model, fast),
        Unrolled(second_order_from=second_order_from, multi_step_until=multi_step_until),
        num_inner_steps,
    )


def cavia(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "context"
) -> GradientBased:
    """Context adaptation: a context vector moves from zero, all else is shared, second order.

    Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson: Fast Context Adaptation via Meta-Learning,
    ICML 2019, eq. 3-4. The model's context starts at zero and stays the start of every task.
    """
    names = select(model, fast)
    return GradientBased(model, sgd(inner_lr), names, Unrolled(), num_inner_steps, fixed=names)


def imaml(
    model: TaskModel,
    *,
    inner_lr: float,
    num_inner_steps: int,
    proximal: float = 1.0,
    num_cg_iterations: int = 5,
    damping: float = 0.0,
    fast: Fast = "all",
) -> GradientBased:
    """Implicit MAML: the gradient by the implicit function theorem (see `Implicit`).

    Rajeswaran, Finn, Kakade, Levine: Meta-Learning with Implicit Gradients, NeurIPS 2019.
    """
    mode = Implicit(proximal=proximal, num_cg_iterations=num_cg_iterations, damping=damping)
    return GradientBased(model, sgd(inner_lr), select(model, fast), mode, num_inner_steps)


def melu(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """MeLU: the decision layers are fast, embeddings are not, second order.

    Lee, Im, Jang, Cho, Chung: MeLU, KDD 2019, algorithm 1. The model decides what is adaptable: its
    decision layers. Differs from the authors' code, which loads fast weights into the module and so
    drops the second order that the paper has.
    """
    return maml(model, inner_lr=inner_lr, num_inner_steps=num_inner_steps, fast=fast)


def fine_tuning(
    model: TaskModel, *, inner_lr: float, num_inner_steps: int, fast: Fast = "all"
) -> GradientBased:
    """Trained on all tasks pooled, then fine-tuned on each: the baseline without meta-learning."""
    return GradientBased(model, sgd(inner_lr), select(model, fast), Unadapted(), num_inner_steps)


def ridge(model: TaskModel, *, penalty: float = 1.0, scale: float = 1.0) -> GradientBased:
    """A head solved in closed form on features that are meta-learned (R2-D2).

    Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with differentiable closed-form solvers,
    ICLR 2019. See `RidgeStart`.
    """
    start = RidgeStart(linear_head(model), penalty=penalty, scale=scale)
    return _solved(model, start)


def logistic(model: TaskModel, *, penalty: float = 1.0, num_newton_steps: int = 5) -> GradientBased:
    """As `ridge`, with the head by Newton steps of a logistic regression (LR-D2, ibid.)."""
    start = LogisticStart(linear_head(model), penalty=penalty, num_iterations=num_newton_steps)
    return _solved(model, start)


def prototypes(
    model: TaskModel, *, inner_lr: float = 0.01, num_inner_steps: int = 0
) -> GradientBased:
    """A head of class means (ProtoNet); with inner steps, proto-MAML on the whole model.

    Snell, Swersky, Zemel, NeurIPS 2017; Triantafillou et al., ICLR 2020. See `PrototypeStart`.
    """
    start = PrototypeStart(linear_head(model))
    fast = model.head if num_inner_steps == 0 else model.adaptable
    return GradientBased(model, sgd(inner_lr), fast, Unrolled(), num_inner_steps, start=start)


def amortised_head(
    model: TaskModel, *, hidden: int = 64, inner_lr: float = 0.01, num_inner_steps: int = 0
) -> GradientBased:
    """A neural process for classes: each class's head row by a network from its support rows.

    VERSA (Gordon et al. 2019) and the head of CNAPs (Requeima et al. 2019). See `AmortisedHead`.
    """
    start = AmortisedHead(linear_head(model), hidden=hidden)
    return GradientBased(model, sgd(inner_lr), model.head, Unrolled(), num_inner_steps, start=start)


def neural_process(
    model: TaskModel,
    *,
    row_width: int,
    fast: Fast = "film",
    hidden: int = 128,
    inner_lr: float = 0.01,
    num_inner_steps: int = 0,
) -> GradientBased:
    """A conditional neural process: a set encoder of the support gives the fast weights.

    Garnelo et al., ICML 2018; with FiLM as the fast set, as TaNP and CNAPs. With inner steps, an
    amortised start that gradient steps refine. See `AmortisedStart`.

    Args:
        row_width: width of a support row as the model gives it, target included.
    """
    if not isinstance(model, HasRows):
        raise ConfigError(
            f"{type(model).__name__} does not give its support as rows to encode.",
            remedy="Use an algorithm of gradient steps, or a model with `rows`.",
        )
    start = AmortisedStart(model, row_width=row_width, hidden=hidden)
    names = select(model, fast)
    return GradientBased(model, sgd(inner_lr), names, Unrolled(), num_inner_steps, start=start)


def _solved(model: TaskModel, start: RidgeStart | LogisticStart) -> GradientBased:
    # no inner step follows, so the rule never runs
    return GradientBased(model, sgd(0.0), model.head, Unrolled(), 0, start=start)
