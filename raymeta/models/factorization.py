"""score(user, item j) = prior_j + <what the user's context says, vector of j>, on kept vectors.

Item vectors and prior come from training users' co-occurrences (`cooccurrence`) and stay as they
are; meta-learning sets a few numbers (how strongly the log is shrunk, and how a row of the support
counts by event type, popularity, repetition, age and the size of the support), and each user adapts
a context. From a context of zero, a step of rate a gives the neighbours of what the user has:

    scores = prior + a W F W' sum_j w_j e_j,    F = diag(s / (s + r)) I / sum_d s_d / (s_d + r)

so that a rate of 1 moves an item that the user has by about 1 (on average over items, W F W' has 1
on its diagonal). Further steps are smaller for what the user's own events already explain.

A training user is in the co-occurrences that it would be judged with: its neighbours look better
than those of anybody else, and what is learned from it would not hold for a new user. Its task
therefore carries the items that it was counted with (`own_item`), and they are taken out exactly.
With y = W' x of its row x, and D = s + r, the ridge regression without it is

    W (diag(s / D) - k (y / D) (y / D)') W',    k = r / (1 - y' (y / D))

by the formula of Sherman and Morrison. Where the log's columns were divided by a power of how many
users n their items have (`item_exponent`), so is x, and the regression without the user is then
scaled from n to n - 1 users of each of its items, which is exact as r grows (cosines).

The ridge may follow how many rows n a support has, r (n / 32)^b with b learned: one order of an
online shop is a few items that say little beyond what often goes with them, ten orders bear out
rare pairs.

Where the places of events are known, the prior is that of the user's places (`place_prior`), by a
weight exp(place_gate) (n / 32)^place_by_size.

Leaving a user out is exact as long as W spans the whole log, which is why training uses more
columns than are served (`serving`).

Shapes: S support rows, Q query rows, I items, C candidates, D width of an item vector.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raymeta.models.base import masked_mean
from raymeta.models.cooccurrence import Cooccurrence, item_scale
from raymeta.models.place_prior import PlacePrior
from raymeta.models.ranking_losses import indicator, soft_ndcg_loss
from raymeta.types import Examples, Params

# What is left of a direction that only this user spans; its square root has no derivative at 0.
_MIN_REMAINDER = 1e-4

_PLACE_GATE = -0.5  # log: what is bought together says a part of where it was bought

TYPICAL_ROWS = 32.0
"""Rows of a support whose ridge is `regularisation`, where the ridge depends on them."""


class Factorization:
    """A model of one user's taste as a context vector.

    Args:
        start: item vectors `[I, D]`, spectrum and prior `[I]`, never trained.
        regularisation: start value of the ridge r, in users.
        serving_dim: columns that are served; the rest is only there for training.
        num_event_types: types of events that a support row can have.
        ridge_by_size: start value of b, how the ridge follows the size of the support; None: one
            ridge for all, and nothing to learn.
        item_exponent: what `start` was made with.
        places: how places sell; None: they play no part.
        place_dim: columns of it that are served.
        outer_loss: `ndcg` (soft nDCG@10) or `softmax` (mean over the Q later items of -log softmax
            among the items that are not in the support).
    """

    adaptable = frozenset({"context"})
    head = frozenset({"context"})

    def __init__(
        self,
        start: Cooccurrence,
        *,
        regularisation: float,
        serving_dim: int | None = None,
        num_event_types: int = 1,
        ridge_by_size: float | None = None,
        item_exponent: float = 0.0,
        places: PlacePrior | None = None,
        place_dim: int = 128,
        outer_loss: str = "ndcg",
    ) -> None:
        self._start, self._regularisation = start, regularisation
        self._vectors, self._spectrum = start.item_vectors, start.column_spectrum
        self._prior = start.item_prior
        self._dim = self._vectors.shape[1]
        self._serving_dim = min(serving_dim or self._dim, self._dim)
        self._num_event_types, self._outer_loss = num_event_types, outer_loss
        self._ridge_by_size = ridge_by_size
        self._item_exponent = item_exponent
        self._places, self._place_dim = places, place_dim
        self._popularity = self._prior + start.log_num_items  # log of its share to the mean share

    @property
    def start(self) -> Cooccurrence:
        """What it was started from."""
        return self._start

    def init(self, generator: torch.Generator) -> Params:
        """The start: the co-occurrence model itself. Nothing is drawn."""
        del generator
        zero = self._prior.new_zeros(())
        params = {
            "context": self._vectors.new_zeros(self._dim),
            "log_ridge": torch.log(zero + self._regularisation),
            "log_gain": zero.clone(),
            "size_exponent": zero.clone(),
            "popularity_weight": zero.clone(),
            "type_weight": self._prior.new_zeros(self._num_event_types),
            "count_weight": zero.clone(),
            "age_weight": zero.clone(),
        }
        if self._ridge_by_size is not None:
            params["ridge_by_size"] = zero + self._ridge_by_size
        if self._places is not None:
            params |= {"place_gate": zero + _PLACE_GATE, "place_by_size": zero.clone()}
        return params

    def tables(self) -> Params:
        return {**self._start.tables(), **(self._places.tables() if self._places else {})}

    def serving(self) -> "Factorization":
        """The same model in the columns that are served."""
        return Factorization(
            self._start.cut(self._serving_dim),
            regularisation=self._regularisation,
            num_event_types=self._num_event_types,
            ridge_by_size=self._ridge_by_size,
            item_exponent=self._item_exponent,
            places=self._places and self._places.served(self._place_dim),
            place_dim=self._place_dim,
            outer_loss=self._outer_loss,
        )

    def serving_params(self, params: Params) -> Params:
        """Parameters, or rates of parameters, of this model as those of `serving`."""
        return {
            name: value[: self._serving_dim].clone() if name == "context" else value
            for name, value in params.items()
        }

    def shared(self, params: Params) -> Params:
        """F^(1/2), `[D]`, where it is the same for all users."""
        if self._ridge_by_size is not None:
            return {}
        return {"filter": self._filter(params["log_ridge"].exp())}

    def given(self, params: Params, support: Examples) -> Params:
        """What the rest of the state needs of one task's support: log(n / 32), where the ridge
        depends on it, and the gated vector of its places `[D_place]`, where they are known."""
        found: Params = {}
        if self._ridge_by_size is not None:
            found["log_size"] = self._log_size(support)
        if self._places is not None:
            found["place"] = self._place_gate(params, support) * self._places.of_support(support)
        return found

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """2 sum_j w_j log(1 + exp(-<context, v_j>)) n^-size_exponent over the S support rows.

        v_j = F^(1/2) W_j; w_j depends on the type of the event, on the popularity of j, on how
        often it occurred and on its age. The gradient at a context of zero is - sum_j w_j v_j.
        """
        moved = self._vectors[support["item"]] @ self.direction(params, shared, support)
        weights = self.row_weights(params, support)
        size = support["mask"].sum().clamp(min=1).to(weights.dtype)
        return 2.0 * (weights * softplus(-moved)).sum() * size ** (-params["size_exponent"])

    def row_weights(self, params: Params, support: Examples) -> Tensor:
        """w `[S]`: how much each row of the support counts; 0 where it is padded."""
        log_weight = (
            params["log_gain"]
            + params["type_weight"][support["event_type"]]
            + params["popularity_weight"] * self._popularity[support["item"]]
            + params["count_weight"] * support["count"].clamp(min=1.0).log()
            - params["age_weight"] * torch.log1p(support["age_days"] / 7.0)
        )
        if self._is_rescaled(support):
            log_weight = log_weight + self._log_rescaled(support)[support["item"]]
        return torch.where(support["mask"], log_weight.exp(), 0.0)

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """How far the list of items that are not in the support is from the later items."""
        return self.ranking_loss(self.training_scores(params, shared, support), support, query)

    def training_scores(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """Scores of all items, `[I]`, a training user's own part of the log left out of them."""
        direction = self.direction(params, shared, support)
        adapted = self._vectors @ direction
        if self._is_rescaled(support):
            adapted = adapted * self._log_rescaled(support).exp()
        prior = self._prior + self.prior_correction(support)
        if self._places is not None:
            scores = self._places.scores(self._places.of_support(support))
            if "own_place" in support:
                scores = scores + self._places.correction(support)
            prior = prior + self._place_gate(params, support) * scores
        return prior + adapted

    def ranking_loss(self, scores: Tensor, support: Examples, query: Examples) -> Tensor:
        """The outer loss of scores `[I]`, whoever gave them."""
        hidden = indicator(support["item"], support["mask"], scores)
        if self._outer_loss == "ndcg":
            relevant = indicator(query["item"], query["mask"], scores)
            return soft_ndcg_loss(scores, relevant, hidden)
        log_probability = (scores - 1e4 * hidden).log_softmax(0)
        return -masked_mean(log_probability[query["item"]], query["mask"])

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        direction = self.direction(params, shared, None)
        rows = slice(None) if candidates is None else candidates
        scores = self._prior[rows] + self._vectors[rows] @ direction
        if self._places is not None:
            scores = scores + self._places.scores(params["place"], candidates)
        return scores

    @property
    def num_items(self) -> int:
        return len(self._prior)

    def of_items(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[C, D]` and popularity `[C]` (log of the share to the mean share) of items."""
        return self._vectors[items], self._popularity[items]

    def direction(self, params: Params, shared: Params, support: Examples | None) -> Tensor:
        """What the context adds to the scores, as a vector of the items' space, `[D]`.

        With its support, a training user is taken out of what it is judged with; without, what the
        support said is among `params` (`given`).
        """
        context = params["context"]
        if support is None and "filter" in shared:
            return shared["filter"] * context
        log_size = params["log_size"] if support is None else self._log_size(support)
        ridge = self._ridge(params, log_size)
        if support is not None and "own_item" in support:
            along, share = self._left_out(ridge, support)
            context = context - share * along * (along @ context)
        return (shared["filter"] if "filter" in shared else self._filter(ridge)) * context

    def filter(self, params: Params, shared: Params) -> Tensor:
        """F^(1/2) of one task, `[D]`, with what its support said among `params`."""
        found = shared.get("filter")
        return self._filter(self._ridge(params, params["log_size"])) if found is None else found

    def _ridge(self, params: Params, log_size: Tensor) -> Tensor:
        """r of one task."""
        if self._ridge_by_size is None:
            return params["log_ridge"].exp()
        return (params["log_ridge"] + params["ridge_by_size"] * log_size).exp()

    def _place_gate(self, params: Params, support: Examples) -> Tensor:
        by_size = params["place_by_size"] * self._log_size(support)
        return torch.exp(params["place_gate"] + by_size)

    def _log_size(self, support: Examples) -> Tensor:
        rows = support["mask"].sum().clamp(min=1).to(self._prior.dtype)
        return torch.log(rows / TYPICAL_ROWS)

    def _filter(self, ridge: Tensor) -> Tensor:
        """F^(1/2), `[D]`: how much of each column of the item vectors a user's context moves.

        The sum in F is over the whole spectrum, so that what was learned with many columns moves
        scores as far with the few that are served.
        """
        kept = self._spectrum / (self._spectrum + ridge)
        everything = (self._start.spectrum / (self._start.spectrum + ridge)).sum()
        own_similarity = everything * (-self._start.log_num_items).exp()
        return (kept / own_similarity).sqrt()

    def _left_out(self, ridge: Tensor, support: Examples) -> tuple[Tensor, Tensor]:
        """z `[D]` and c with (1 - c z z')^2 = 1 - k z z', z = y / (s (s + r))^(1/2)."""
        row = indicator(support["own_item"], support["own_mask"], self._prior)
        row = row * item_scale(self._users(), self._item_exponent)
        coordinates = row @ self._vectors
        damped = self._spectrum + ridge
        along = coordinates / (self._spectrum * damped).sqrt()
        length = along.square().sum()
        outside = row.square().sum() - coordinates.square().sum()  # of the columns
        unseen = outside.clamp(min=0.0)
        leverage = (coordinates.square() / damped).sum() + unseen / ridge
        remainder = 1.0 - ridge * length / (1.0 - leverage)
        root = remainder.clamp(min=_MIN_REMAINDER).sqrt()
        return along, (1.0 - root) / length.clamp(min=1e-12)

    def _is_rescaled(self, support: Examples) -> bool:
        """Whether the user is among those whose number its items were divided by."""
        return "own_item" in support and self._item_exponent > 0.0

    def _log_rescaled(self, support: Examples) -> Tensor:
        """log (n / (n - 1))^e of the items that a training user was counted with, else 0, `[I]`."""
        row = indicator(support["own_item"], support["own_mask"], self._prior)
        users = self._users()
        others = item_scale(users - row, self._item_exponent)
        return torch.log(others / item_scale(users, self._item_exponent))

    def _users(self) -> Tensor:
        """Training users of each item, `[I]`; the prior counts one more."""
        return (self._prior + self._start.log_total).exp() - 1.0

    def prior_correction(self, support: Examples) -> Tensor:
        """What the prior changes by with the user's own items counted once less, `[I]`."""
        if "own_item" not in support:
            return torch.zeros_like(self._prior)
        row = indicator(support["own_item"], support["own_mask"], self._prior)
        counts = (self._prior + self._start.log_total).exp()
        return torch.log1p(-row / counts.clamp(min=2.0))
