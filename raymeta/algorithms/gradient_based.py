"""Gradient-based meta-learners: update rule x fast set x how the gradient passes.

MAML, FOMAML, ANIL and Meta-SGD are values of these three choices (`presets`); nothing here knows
which one it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from raymeta.inner.adapt import GradientMode, adapt_one, over_tasks
from raymeta.inner.rules import UpdateRule
from raymeta.models.base import TaskModel
from raymeta.types import Examples, MetaGradient, Params, TaskBatch, TaskState

# Meta-parameters are one flat dictionary: the model's own names, and the rule's under this prefix.
RULE = "rule."


@dataclass(frozen=True)
class GradientBased:
    """The meta-learner made of a model, an update rule, a fast set and a gradient mode.

    Args:
        model: what is adapted.
        rule: how an inner step moves the fast weights.
        fast: names of the model's parameters that each user gets a copy of.
        mode: whether the outer gradient passes through the inner one.
        num_inner_steps: steps on a user's support.
    """

    model: TaskModel
    rule: UpdateRule
    fast: frozenset[str]
    mode: GradientMode
    num_inner_steps: int

    def init(self, generator: torch.Generator) -> Params:
        params = self.model.init(generator)
        rule = self.rule.init({name: params[name] for name in sorted(self.fast)})
        return {**params, **{f"{RULE}{name}": value for name, value in rule.items()}}

    def tables(self) -> Params:
        return self.model.tables()

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        with torch.no_grad():
            slow, rule_params, fast = self._divide(meta_params)
            shared = self.model.shared(slow)

            def one(task_support: Examples) -> Params:
                return self._adapt_one(fast, slow, shared, rule_params, task_support)

            return over_tasks(one, support)

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            slow, _, _ = self._divide(meta_params)
            shared = self.model.shared(slow)
            if candidates is None:
                return over_tasks(lambda s: self.model.score({**slow, **s}, shared, None), state)
            return over_tasks(
                lambda s, c: self.model.score({**slow, **s}, shared, c), state, candidates
            )

    def query_losses(self, meta_params: Params, batch: TaskBatch) -> Tensor:
        """The query loss of each adapted task, `[T]`, differentiable in the meta-parameters."""
        slow, rule_params, fast = self._divide(meta_params)
        shared = self.model.shared(slow)

        def one(support: Examples, query: Examples) -> Tensor:
            adapted = self._adapt_one(fast, slow, shared, rule_params, support)
            return self.model.query_loss({**slow, **adapted}, shared, support, query)

        return over_tasks(one, batch.support, batch.query)

    def meta_gradient(
        self, meta_params: Params, batch: TaskBatch, *, per_task: bool = False
    ) -> MetaGradient:
        leaves = {name: p.detach().requires_grad_() for name, p in meta_params.items()}
        losses = self.query_losses(leaves, batch)
        if per_task:
            # One vector-Jacobian product for all tasks: row t picks the gradient of task t.
            rows = torch.eye(len(losses), dtype=losses.dtype)
            found = torch.autograd.grad(
                losses, list(leaves.values()), rows, is_grads_batched=True, allow_unused=True
            )
            loss = losses.detach()
            zeros = {n: p.new_zeros(len(losses), *p.shape) for n, p in meta_params.items()}
        else:
            found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
            loss = losses.detach().sum()
            zeros = {n: torch.zeros_like(p) for n, p in meta_params.items()}
        gradients = {
            name: zeros[name] if g is None else g for name, g in zip(leaves, found, strict=True)
        }
        return MetaGradient(gradients=gradients, loss_sum=loss, num_tasks=batch.num_tasks)

    def _divide(self, meta_params: Params) -> tuple[Params, Params, Params]:
        """Meta-parameters as (slow, the rule's, start of the fast weights)."""
        rule = {n.removeprefix(RULE): p for n, p in meta_params.items() if n.startswith(RULE)}
        model = {n: p for n, p in meta_params.items() if not n.startswith(RULE)}
        fast = {name: model[name] for name in sorted(self.fast)}
        return {n: p for n, p in model.items() if n not in self.fast}, rule, fast

    def _adapt_one(
        self, fast: Params, slow: Params, shared: Params, rule_params: Params, support: Examples
    ) -> Params:
        return adapt_one(
            lambda weights, rows: self.model.support_loss({**slow, **weights}, shared, rows),
            fast,
            support,
            rule=self.rule,
            rule_params=rule_params,
            num_steps=self.num_inner_steps,
            mode=self.mode,
        )
