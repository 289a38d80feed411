"""score(user, item j) = prior_j + <context of the user, vector of j>, on vectors that are kept.

Item vectors and prior come from training users' co-occurrences (`cooccurrence`) and stay as they
are; meta-learning corrects them by a few parameters and adapts the context. From a context of
zero, one inner step of rate a moves it to a * sum_j w_j (v_j - E_p[v]): the neighbours of what the
user has, less what everybody has. Further steps unlearn what the user's own events already explain.

Shapes: S support rows, Q query rows, I items, C candidates, D width of an item vector.
"""

import torch
from torch import Tensor

from raymeta.models.base import masked_mean
from raymeta.models.cooccurrence import Cooccurrence
from raymeta.types import Examples, Params


class Factorization:
    """A model of one user's taste as a context vector.

    Args:
        start: item vectors `[I, D]` and prior `[I]`, never trained.
    """

    adaptable = frozenset({"context", "prior_scale"})
    head = frozenset({"context"})

    def __init__(self, start: Cooccurrence) -> None:
        self._vectors = start.item_vectors
        self._prior = start.item_prior
        centred = self._prior - self._prior.mean()
        self._popularity = centred / centred.std().clamp(min=1e-6)

    def init(self, generator: torch.Generator) -> Params:
        """The start: the co-occurrence model itself. Nothing is drawn."""
        del generator
        zero = self._prior.new_zeros(())
        return {
            "context": self._vectors.new_zeros(self._vectors.shape[1]),
            "prior_scale": zero + 1.0,
            "item_bias": torch.zeros_like(self._prior),
            "log_metric": self._vectors.new_zeros(self._vectors.shape[1]),
            "popularity_weight": zero.clone(),
            "count_weight": zero.clone(),
            "age_weight": zero.clone(),
            "size_exponent": zero.clone(),
        }

    def tables(self) -> Params:
        return {"item_vectors": self._vectors, "item_prior": self._prior}

    def shared(self, params: Params) -> Params:
        """Item vectors under the learned diagonal metric, `[I, D]`."""
        return {"vectors": self._vectors * params["log_metric"].exp()}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """- sum_j w_j log softmax(scores)_j / n^size_exponent over the S support rows.

        w_j depends on the popularity of j, on how often it occurred and on its age.
        """
        log_probability = self._logits(params, shared).log_softmax(0)[support["item"]]
        log_weight = (
            params["popularity_weight"] * self._popularity[support["item"]]
            + params["count_weight"] * support["count"].clamp(min=1.0).log()
            - params["age_weight"] * torch.log1p(support["age_days"] / 7.0)
        )
        weights = torch.where(support["mask"], log_weight.exp(), 0.0)
        size = support["mask"].sum().clamp(min=1).to(weights.dtype)
        return -(weights * log_probability).sum() * size ** (-params["size_exponent"])

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """Mean over the Q later items of -log softmax, among the items not in the support."""
        logits = self._logits(params, shared)
        seen = torch.zeros_like(logits).index_add(
            0, support["item"], support["mask"].to(logits.dtype)
        )
        logits = logits - 1e4 * seen.clamp(max=1.0)
        return -masked_mean(logits.log_softmax(0)[query["item"]], query["mask"])

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        scores = self._logits(params, shared)
        return scores if candidates is None else scores[candidates]

    def _logits(self, params: Params, shared: Params) -> Tensor:
        prior = params["prior_scale"] * self._prior + params["item_bias"]
        return prior + shared["vectors"] @ params["context"]
