"""score(u, j) = what `factorization` says + gate(n) <summary of u's events, vector of j>.

The summary and the item vectors are those of a Transformer that was pretrained on the training
users (`next_items`) to add what co-occurrences lack: the order and the time of what happened,
categories, what is bought now. It is frozen here; what is meta-learned is how much its say counts
with n support rows, gate(n) = exp(log_gate) (n / 32)^gate_by_size, and the few numbers of
`factorization`. A user without events has a gate of 0: the prior answers.

A user's events are context in the Transformer's own sense, so that adapting needs no inner step of
it. Beside that, something of it may be the user's own: a vector that is added to the summary, or
LoRA or FiLM parameters in its layers. The inner objective of these is to tell each row's item, from
earlier moments, from others as frequent as items are bought:

    - sum_i log exp(<p_i, v_i>) / (exp(<p_i, v_i>) + sum_k exp(<p_i, v_k>)) / (n + c)

with p_i the prediction for row i, k over a fixed systematic sample of the popularity (so that the
popularity itself cancels), and c learned.

What scoring needs is a user's state: the context of `factorization` and the summary, whatever was
adapted. Where the body is nobody's own it runs once for a batch, outside the inner loop and without
gradients.

Shapes: S support rows, Q query rows, I items, C candidates, E width of the Transformer's item
vectors, K noise items.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raymeta.models.factorization import TYPICAL_ROWS, Factorization
from raymeta.models.next_items import SequenceBody
from raymeta.types import Examples, Params

PREFIX = "sequence."
ITEM_VECTORS, GATE, BODY = f"{PREFIX}item_vectors", f"{PREFIX}gate", f"{PREFIX}body."
CONTEXT = f"{PREFIX}context"

NUM_NOISE = 256
"""K."""

MAX_ATTENTION = 2**25
"""Users run through the body together while rows x rows x heads are at most so many (134 MB)."""

_ADAPTERS = ("lora_a", "lora_b", "film_scale", "film_shift")


class Sequence:
    """A model of one user's taste as a context vector and a summary of its events.

    Args:
        base: what the Transformer adds to.
        body: its encoder and readout; LoRA or FiLM parameters in its layers may be a user's own.
        pretrained: what `train.pretrain` found: item vectors `[I, E]`, the gate's start `[2]` and
            the body's weights, by name under `sequence.`.
        own_context: whether a user has a vector that is added to the summary.
    """

    def __init__(
        self,
        base: Factorization,
        body: SequenceBody,
        pretrained: Params,
        *,
        own_context: bool = False,
    ) -> None:
        self._base, self._body, self._pretrained = base, body.eval(), pretrained
        self._vectors, self._gate = pretrained[ITEM_VECTORS], pretrained[GATE]
        weights = {n: p.detach() for n, p in body.named_parameters()}
        self._in_body = {f"{PREFIX}{n}": w for n, w in weights.items() if n.endswith(_ADAPTERS)}
        self._frozen = {n: w for n, w in weights.items() if not n.endswith(_ADAPTERS)}
        self._own_context = own_context
        own = frozenset(self._in_body) | ({CONTEXT} if own_context else set())
        self._has_own = bool(own)
        self.adaptable = base.adaptable | own
        self.head = base.head | ({CONTEXT} if own_context else set())
        shares = (torch.arange(NUM_NOISE) + 0.5) / NUM_NOISE
        bought = base.tables()["item_prior"].double().softmax(0).cumsum(0)
        self._noise = torch.searchsorted(bought, shares.double()).clamp(max=len(bought) - 1)

    def init(self, generator: torch.Generator) -> Params:
        """The start: `factorization`'s, the gate that pretraining found, nothing of one's own."""
        params = self._base.init(generator)
        params |= {f"{PREFIX}log_gate": self._gate[0].clone()}
        params |= {f"{PREFIX}gate_by_size": self._gate[1].clone()}
        params |= {name: value.clone() for name, value in self._in_body.items()}
        if self._own_context:
            params[CONTEXT] = self._vectors.new_zeros(self._vectors.shape[1])
        if self._has_own:
            params[f"{PREFIX}log_prior_rows"] = self._gate.new_zeros(())
        return params

    def tables(self) -> Params:
        return {**self._base.tables(), **self._pretrained}

    def serving(self) -> "Sequence":
        """The same on the served columns of `factorization`."""
        return Sequence(
            self._base.serving(), self._body, self._pretrained, own_context=self._own_context
        )

    def serving_params(self, params: Params) -> Params:
        """Parameters, or rates of parameters, of this model as those of `serving`."""
        return self._base.serving_params(params)

    def shared(self, params: Params) -> Params:
        return self._base.shared(params)

    def with_activations(
        self, params: Params, examples: Examples, fast: frozenset[str]
    ) -> Examples:
        """`examples` with the body's predictions, `[T, S + 1 or 1, E]`, unless it is fast."""
        if "age_days" not in examples or not fast.isdisjoint(self._in_body):
            return examples
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self._in_body)):
            num_rows = examples["mask"].shape[1]
            heads = self._body.readout.attention.num_heads
            at_once = max(1, MAX_ATTENTION // (heads * num_rows**2))
            parts = [
                self._run(params, {n: v[start : start + at_once] for n, v in examples.items()})
                for start in range(0, len(examples["mask"]), at_once)
            ]
        return {**examples, f"{PREFIX}predictions": torch.cat(parts)}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        loss = self._base.support_loss(params, shared, support)
        if not self._has_own:
            return loss
        predicted = self._predictions(params, support)[:-1]
        if self._own_context:
            predicted = predicted + params[CONTEXT]
        right = (predicted * self._vectors[support["item"]]).sum(-1)
        others = predicted @ self._vectors[self._noise].T
        logits = torch.cat([right[:, None], others], 1)
        losses = torch.where(support["mask"], logits.logsumexp(1) - right, 0.0)
        size = support["mask"].sum().to(losses.dtype)
        return loss + losses.sum() / (size + params[f"{PREFIX}log_prior_rows"].exp())

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        scores = self._base.training_scores(params, shared, support)
        scores = scores + self._vectors @ self._summary(params, support)
        return self._base.ranking_loss(scores, support, query)

    def read(self, params: Params, support: Examples) -> Params:
        """The context, the gated summary `[E]`, and what `factorization` reads."""
        return {
            "context": params["context"],
            f"{PREFIX}summary": self._summary(params, support),
            **self._base.given(params, support),
        }

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        vectors = self._vectors if candidates is None else self._vectors[candidates]
        return self._base.score(params, shared, candidates) + vectors @ params[f"{PREFIX}summary"]

    def _summary(self, params: Params, support: Examples) -> Tensor:
        summary = self._predictions(params, support)[-1]
        if self._own_context:
            summary = summary + params[CONTEXT]
        rows = support["mask"].sum()
        size = rows.clamp(min=1).to(summary.dtype) / TYPICAL_ROWS
        gate = params[f"{PREFIX}log_gate"] + params[f"{PREFIX}gate_by_size"] * size.log()
        return torch.where(rows > 0, gate.exp(), 0.0) * summary

    def _predictions(self, params: Params, support: Examples) -> Tensor:
        """`[S + 1 or 1, E]` of one task."""
        found = support.get(f"{PREFIX}predictions")
        return self._run(params, support) if found is None else found

    def _run(self, params: Params, support: Examples) -> Tensor:
        weights: Mapping[str, Tensor] = {
            **self._frozen,
            **{name.removeprefix(PREFIX): params[name] for name in self._in_body},
        }
        vectors = self._vectors[support["item"]]
        arguments = {"each_row": self._has_own}
        body: nn.Module = self._body
        found: Tensor = functional_call(body, dict(weights), (vectors, support), arguments)
        return found
