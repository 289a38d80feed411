"""Every meta-learner here: start x update rule x fast set x how the gradient passes.

MAML, Meta-SGD, CAVIA, iMAML, Reptile, a ridge head, a neural process are values of these choices
(`presets`); nothing here knows which one it is. The parts are in `raymeta.inner` and `starts`; this
module only puts one task's inner problem together, lifts it over tasks, and takes the gradient.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from raymeta.algorithms.starts import LearnedStart, Start
from raymeta.errors import AdaptationError
from raymeta.inner import forms
from raymeta.inner.adapt import iterates, over_tasks
from raymeta.inner.gradient import GradientMode, InnerProblem, last
from raymeta.inner.gram import Descent, GramForm
from raymeta.inner.rules import UpdateRule
from raymeta.models.base import (
    Predicts,
    ReadsFeatures,
    ReadsSupport,
    ServedSmaller,
    SplitsBody,
    TaskModel,
)
from raymeta.types import Examples, MetaGradient, Params, TaskBatch, TaskState

# Meta-parameters are one flat dictionary: the model's own names, and the rule's and the start's
# under these prefixes.
RULE = "rule."
START = "start."


@dataclass(frozen=True)
class _Parts:
    """Meta-parameters by whose they are."""

    model: Params
    rule: Params
    start: Params


@dataclass(frozen=True)
class Prepared:
    """Meta-parameters that stay as they are, and what is worked out of them once for all users."""

    meta_params: Params
    parts: _Parts
    slow: Params
    shared: Params


@dataclass(frozen=True)
class GradientBased:
    """The meta-learner made of a model and four choices.

    Args:
        model: what is adapted.
        rule: how an inner step moves the fast weights.
        fast: names of the model's parameters that each user gets a copy of.
        mode: how the outer gradient passes through the inner loop.
        num_inner_steps: steps on a user's support; 0 where the start is the whole of adapting.
        start: where a user's fast weights begin.
        fixed: names of meta-parameters that the outer loop leaves as they are (the start of a
            context that is always zero).
    """

    model: TaskModel
    rule: UpdateRule
    fast: frozenset[str]
    mode: GradientMode
    num_inner_steps: int
    start: Start = field(default_factory=LearnedStart)
    fixed: frozenset[str] = frozenset()
    _forms: dict[forms.Signature, GramForm | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def init(self, generator: torch.Generator) -> Params:
        params = self.model.init(generator)
        rule = self.rule.init({name: params[name] for name in sorted(self.fast)})
        start = self.start.init(params, self.fast, generator)
        return {
            **params,
            **{f"{RULE}{name}": value for name, value in rule.items()},
            **{f"{START}{name}": value for name, value in start.items()},
        }

    def tables(self) -> Params:
        return self.model.tables()

    def served(self, meta_params: Params) -> "tuple[GradientBased, Params]":
        if not isinstance(self.model, ServedSmaller):
            return self, meta_params
        parts = self._divide(meta_params)
        cut = self.model.serving_params
        return replace(self, model=self.model.serving()), {
            **cut(parts.model),
            **{f"{RULE}{name}": value for name, value in cut(parts.rule).items()},
            **{f"{START}{name}": value for name, value in parts.start.items()},
        }

    def prepare(self, meta_params: Params) -> Prepared:
        """For `adapt_prepared` and `score_prepared`, as often as the meta-parameters stay."""
        with torch.no_grad():
            parts = self._divide(meta_params)
            slow = self._slow(parts)
            return Prepared(meta_params, parts, slow, self.model.shared(slow))

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        return self.adapt_prepared(self.prepare(meta_params), support)

    def adapt_prepared(self, prepared: Prepared, support: Examples) -> TaskState:
        """`adapt` with meta-parameters that were prepared before."""
        with torch.no_grad():
            parts, shared = prepared.parts, prepared.shared
            form = self._form(prepared.meta_params, support, None)

            def one(task: Examples) -> Params:
                given = self._given(parts, task)
                state = {**given, **self._adapted(parts, shared, task, form)}
                if isinstance(self.model, ReadsSupport):
                    return self.model.read({**prepared.slow, **state}, task)
                return state

            return over_tasks(one, self._with_activations(parts, support))

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        return self.score_prepared(self.prepare(meta_params), state, candidates)

    def score_prepared(
        self, prepared: Prepared, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        """`score` with meta-parameters that were prepared before."""
        with torch.no_grad():
            slow, shared = prepared.slow, prepared.shared
            if candidates is None:
                return over_tasks(lambda s: self.model.score({**slow, **s}, shared, None), state)
            return over_tasks(
                lambda s, c: self.model.score({**slow, **s}, shared, c), state, candidates
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """What `predict` gives probabilities of; none where the model only orders items."""
        return self.model.targets if isinstance(self.model, Predicts) else ()

    def predict(self, meta_params: Params, state: TaskState, rows: Examples) -> Tensor:
        """Probabilities `[T, C, targets]` of what users do with items, `rows` `[T, C]` each."""
        return self.predict_prepared(self.prepare(meta_params), state, rows)

    def predict_prepared(self, prepared: Prepared, state: TaskState, rows: Examples) -> Tensor:
        """`predict` with meta-parameters that were prepared before."""
        model = self.model
        if not isinstance(model, Predicts):
            raise AdaptationError(
                f"{type(model).__name__} orders items and gives no probabilities.",
                remedy="Use a model that has them, such as ctr.",
            )
        with torch.no_grad():
            slow, shared = prepared.slow, prepared.shared
            return over_tasks(lambda s, r: model.predict({**slow, **s}, shared, r), state, rows)

    def query_losses(
        self, meta_params: Params, batch: TaskBatch, *, outer_step: int | None = None
    ) -> Tensor:
        """The query loss of each adapted task, `[T]`, differentiable in the meta-parameters.

        Its derivative is the mode's meta-gradient, which is that of the value where the mode is
        exact (`Unrolled`; `Implicit` at the end of a converged inner loop).
        """
        form = self._form(meta_params, batch.support, batch.query)
        return self._query_losses(meta_params, batch, outer_step, form)

    def _query_losses(
        self, meta_params: Params, batch: TaskBatch, outer_step: int | None, form: GramForm | None
    ) -> Tensor:
        parts = self._divide(meta_params)
        shared = self.model.shared(self._slow(parts))

        def one(support: Examples, query: Examples) -> Tensor:
            problem = self._problem(parts, shared, support, query, form)
            return self.mode.query_loss(problem, outer_step)

        return over_tasks(
            one,
            self._with_activations(parts, batch.support),
            self._with_activations(parts, batch.query),
        )

    def meta_gradient(
        self,
        meta_params: Params,
        batch: TaskBatch,
        *,
        per_task: bool = False,
        outer_step: int | None = None,
    ) -> MetaGradient:
        if per_task:
            return self._gradient_per_task(meta_params, batch, outer_step)
        leaves = {name: p.detach().requires_grad_() for name, p in meta_params.items()}
        losses = self.query_losses(leaves, batch, outer_step=outer_step)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(meta_params[name]) if g is None else g
            for name, g in zip(leaves, found, strict=True)
        }
        return MetaGradient(gradients, losses.detach().sum(), batch.num_tasks)

    def _gradient_per_task(
        self, meta_params: Params, batch: TaskBatch, outer_step: int | None
    ) -> MetaGradient:
        """One pass: the gradient of one task's loss, lifted over tasks."""
        form = self._form(meta_params, batch.support, batch.query)

        def loss(params: Params, support: Examples, query: Examples) -> Tensor:
            alone = TaskBatch(_unsqueezed(support), _unsqueezed(query))
            return self._query_losses(params, alone, outer_step, form)[0]

        def one(support: Examples, query: Examples) -> tuple[Params, Tensor]:
            return torch.func.grad_and_value(loss)(meta_params, support, query)

        gradients, losses = over_tasks(one, batch.support, batch.query)
        return MetaGradient(gradients, losses, batch.num_tasks)

    def _adapted(
        self, parts: _Parts, shared: Params, support: Examples, form: GramForm | None
    ) -> Params:
        """One task's fast weights after the inner loop."""
        if form is None:
            return last(self._problem(parts, shared, support, support).descend(True))
        start, slow = self._start(parts, support)
        return form.adapted(start, (slow, shared, support), self._descent(parts))

    def _problem(
        self,
        parts: _Parts,
        shared: Params,
        support: Examples,
        query: Examples,
        form: GramForm | None = None,
    ) -> InnerProblem:
        """One task, ready to be adapted."""
        start, slow = self._start(parts, support)
        if form is not None:
            inner, outer = (slow, shared, support), (slow, shared, support, query)
            return form.problem(start, inner, outer, self._descent(parts))
        objective = self.mode.objective(
            lambda fast: self._support_loss(fast, slow, shared, support), start
        )
        return InnerProblem(
            start=start,
            objective=objective,
            query_loss=lambda fast: self._query_loss(fast, slow, shared, support, query),
            descend=lambda first_order: iterates(
                objective,
                start,
                rule=self.rule,
                learned=parts.rule,
                num_steps=self.num_inner_steps,
                first_order=first_order,
            ),
        )

    def _start(self, parts: _Parts, support: Examples) -> tuple[Params, Params]:
        """One task's fast weights before the first step, and its slow parameters."""
        parts = replace(parts, model={**parts.model, **self._given(parts, support)})
        return self.start(parts.start, parts.model, self.fast, support), self._slow(parts)

    def _descent(self, parts: _Parts) -> Descent:
        return Descent(self.rule, parts.rule, self.num_inner_steps)

    def _support_loss(
        self, fast: Params, slow: Params, shared: Params, support: Examples
    ) -> Tensor:
        return self.model.support_loss({**slow, **fast}, shared, support)

    def _query_loss(
        self, fast: Params, slow: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        return self.model.query_loss({**slow, **fast}, shared, support, query)

    def _form(
        self, meta_params: Params, support: Examples, query: Examples | None
    ) -> GramForm | None:
        """The form that this batch runs in; None for the definition."""
        num_tasks = len(next(iter(support.values())))
        can = self.rule.rate is not None and self.mode.follows_path
        if not can or num_tasks * self.num_inner_steps < forms.MIN_TASK_STEPS:
            return None
        key = forms.signature(support, query or {})
        if key not in self._forms:
            detached = {name: p.detach() for name, p in meta_params.items()}
            rows = [self._one_task(detached, part) for part in (support, query) if part is not None]
            self._forms[key] = self._adopted(detached, *rows)
        return self._forms[key]

    def _one_task(self, meta_params: Params, examples: Examples) -> Examples:
        rows = {name: value[:1] for name, value in examples.items()}
        rows = self._with_activations(self._divide(meta_params), rows)
        return {name: value[0].detach() for name, value in rows.items()}

    def _adopted(
        self, meta_params: Params, support: Examples, query: Examples | None = None
    ) -> GramForm | None:
        """The Gram form, if there is one and it gives one task what the definition gives it."""
        parts = self._divide(meta_params)
        start, slow = self._start(parts, support)
        inner = (slow, self.model.shared(self._slow(parts)), support)
        if query is None:
            form = forms.gram_form(start, self.num_inner_steps, self._support_loss, inner)
        else:
            form = forms.gram_form(
                start,
                self.num_inner_steps,
                self._support_loss,
                inner,
                self._query_loss,
                (*inner, query),
            )
        if form is None:
            return None

        def judged(params: Params, form: GramForm | None) -> Tensor:
            parts = self._divide(params)
            shared = self.model.shared(self._slow(parts))
            if query is not None:
                problem = self._problem(parts, shared, support, query, form)
                return problem.query_loss(last(problem.descend(False)))
            fast = self._adapted(parts, shared, support, form)
            return torch.stack([w.square().sum() for w in fast.values()]).sum()

        return forms.adopted(form, judged, meta_params)

    def _given(self, parts: _Parts, support: Examples) -> Params:
        """What one task's features say of its parameters."""
        if isinstance(self.model, ReadsFeatures):
            return self.model.given(parts.model, support)
        return {}

    def _with_activations(self, parts: _Parts, examples: Examples) -> Examples:
        """What the fast weights do not change, computed once for all tasks, before the loop."""
        if isinstance(self.model, SplitsBody):
            return self.model.with_activations(parts.model, examples, self.fast)
        return examples

    def _divide(self, meta_params: Params) -> _Parts:
        parts = _Parts({}, {}, {})
        for name, value in meta_params.items():
            value = value.detach() if name in self.fixed else value
            if name.startswith(RULE):
                parts.rule[name.removeprefix(RULE)] = value
            elif name.startswith(START):
                parts.start[name.removeprefix(START)] = value
            else:
                parts.model[name] = value
        return parts

    def _slow(self, parts: _Parts) -> Params:
        return {name: p for name, p in parts.model.items() if name not in self.fast}


def _unsqueezed(examples: Examples) -> Examples:
    return {name: value.unsqueeze(0) for name, value in examples.items()}
