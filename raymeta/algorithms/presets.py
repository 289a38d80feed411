"""Named algorithms: each is a few lines that choose a rule, a fast set and a gradient mode."""

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.inner.rules import learned_rates, sgd
from raymeta.models.base import TaskModel


def maml(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """Model-agnostic meta-learning: every adaptable parameter is fast, second order.

    Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks,
    ICML 2017, algorithm 2.
    """
    return GradientBased(model, sgd(inner_lr), model.adaptable, "unrolled", num_inner_steps)


def fomaml(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """First-order MAML: as `maml`, with inner gradients held constant (ibid., section 5.2)."""
    return GradientBased(model, sgd(inner_lr), model.adaptable, "first_order", num_inner_steps)


def anil(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """Almost no inner loop: only the head is fast, second order.

    Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse?, ICLR 2020, section 4.
    """
    return GradientBased(model, sgd(inner_lr), model.head, "unrolled", num_inner_steps)


def meta_sgd(model: TaskModel, *, inner_lr: float, num_inner_steps: int) -> GradientBased:
    """MAML with a learned rate for each element of each fast parameter.

    Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017, eq. 2.
    """
    rule = learned_rates(inner_lr)
    return GradientBased(model, rule, model.adaptable, "unrolled", num_inner_steps)
