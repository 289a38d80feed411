"""Which execution form a batch of tasks runs in; the definition is `adapt.iterates` under `vmap`.

    definition   what everything else is held to; a lone task runs without `vmap`
    Gram form    what does not change in the inner loop computed once a task, and the first fast
                 layers kept as deltas (`gram`); for any model whose losses can be traced, and any
                 rule with one rate a tensor

The choice depends on what is fast, on shapes and on the number of tasks, never on the history of
the process, so that two runs of the same configuration take the same forms. Before a form is
adopted it has to give the definition's query loss and meta-gradient on the first task at hand; one
that does not (a loss whose derivative is not that of its operations, such as a straight-through
estimator) leaves the definition in place, and the log says so.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raymeta.inner.gram import GramForm
from raymeta.inner.partial import Arguments, Layer, TracedLoss, UntraceableError
from raymeta.types import Examples, Params

logger = logging.getLogger(__name__)

MIN_TASK_STEPS = 64
"""Tasks times inner steps below which tracing a loss (about 0.1 s, once) does not pay."""

STACKED_ROWS = 2.0
"""Up to how many rows, as a multiple of F D / (F + D), stacking is faster than a user's own weight
of F inputs and D outputs (`_gains`): measured on layers of 64 x 64 and 256 x 64."""

Signature = tuple[object, ...]


def signature(*examples: Examples) -> Signature:
    """What a form depends on: names, kinds and shapes of one task's rows."""
    return tuple(
        (name, value.dtype, value.shape[1:]) for part in examples for name, value in part.items()
    )


def gram_form(
    fast: Params,
    num_steps: int,
    support_loss: Callable[..., Tensor],
    support_arguments: Arguments,
    query_loss: Callable[..., Tensor] | None = None,
    query_arguments: Arguments = (),
) -> GramForm | None:
    """The Gram form of one task's losses, or None where it cannot be had or gains nothing.

    Args:
        fast: start of the fast weights.
        num_steps: inner steps.
        support_loss: (fast weights, *support_arguments) -> scalar.
        query_loss: (fast weights, *query_arguments) -> scalar; not needed for adapting alone.
    """
    try:
        support = TracedLoss(support_loss, fast, support_arguments)
        query = TracedLoss(query_loss, fast, query_arguments) if query_loss else None
    except UntraceableError as error:
        logger.info("The losses are not cut: %s", error)
        return None
    layers = support.layers()
    if query is not None:
        others = query.layers()
        layers = {n: layer for n, layer in layers.items() if n in others}
    names = frozenset(n for n, layer in layers.items() if _gains(layer, fast[n], num_steps))
    if not names and not support.has_fixed_part:
        return None
    return GramForm(support.cut(names), query.cut(names) if query is not None else None)


def _gains(layer: Layer, weight: Tensor, num_steps: int) -> bool:
    """Whether a layer is better kept as stacked rows than as a user's own weight.

    With a fixed input: where the rows are fewer than the inputs. With a changing one, n stacked
    rows cost n R (F + D) of products a step and the weight R F D; n grows with the steps, but the
    weight's products are many small ones, and F D numbers a user have to be written.
    """
    num_outputs, num_inputs = weight.shape if layer.layout == "out_in" else weight.shape[::-1]
    if layer.has_fixed_input:
        return layer.num_rows < (len(weight) if layer.layout == "rows" else num_inputs)
    rows = layer.num_rows * num_steps
    return rows < STACKED_ROWS * num_inputs * num_outputs / (num_inputs + num_outputs)


def adopted(
    form: GramForm, judged: Callable[[Params, GramForm | None], Tensor], params: Params
) -> GramForm | None:
    """`form`, if a task's loss by it has the value and the gradient that the definition gives.

    Args:
        judged: (meta-parameters, form or None for the definition) -> a scalar of one task.
        params: meta-parameters.
    """
    with torch.enable_grad():
        pairs = zip(
            _value_and_gradient(lambda p: judged(p, form), params),
            _value_and_gradient(lambda p: judged(p, None), params),
            strict=True,
        )
    for found, expected in pairs:
        tolerance = torch.finfo(expected.dtype).eps ** 0.5  # 3e-4 in float32, 1e-8 in float64
        error = (found - expected).abs().max()
        # also false where either is not a number
        if not bool(error <= tolerance * expected.abs().max().clamp(min=1e-6)):
            logger.warning("The Gram form differs from the definition by %.1e: not used", error)
            return None
    return form


def _value_and_gradient(loss: Callable[[Params], Tensor], params: Params) -> tuple[Tensor, Tensor]:
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    value = loss(leaves)
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if value.requires_grad:  # not where the start is fixed and the inner gradients are constants
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    zeros = (p.new_zeros(p.shape) for p in params.values())
    return value.detach(), torch.cat(
        [(zero if g is None else g).reshape(-1) for g, zero in zip(found, zeros, strict=True)]
    )
