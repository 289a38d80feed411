"""The probability that a user buys in a category within the horizon.

    f(u, c, t)  = what is known of user u and category c at the moment t, below
    taste(u, t) = sum over categories k of frequency(u, k, t) x K_k
    z           = relu([f, V_c, taste x V_c] W + b)
    logit       = base_c + head . [f, z] + <context + taste, V_c> + bias

`frequency(u, k, t) = log((bought + m q_k) / (baskets + m) / q_k)` is how much oftener than anybody
u has bought in k so far, q_k the share of baskets with k and m a learned number of baskets at that
share: the posterior mean of a Beta prior. Before training the logit is that of the category's rate
plus the frequency. Before a user's first basket another base stands for base_c.
`head`, `bias` and `context` are a user's own; the context moves all categories together along
their vectors, so that what came true of one says something of the others.

A user's rows are summed as if there were more of no loss (`support_loss`), so that a few moments
move a user less than many do.

Shapes: M moments of a user, C categories, E width of a category's vector, F numbers of f, H width
of z, R rows that are asked for, I items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raymeta.types import Examples, Params

NUM_FEATURES = 11
ROWS_OF_UNIT_LOSS = 32.0
"""A query's loss is summed over its rows, in units of so many."""

_HEAD = frozenset({"head", "bias"})
_NOW = "now_"
_STATE = ("now_num_baskets", "now_num_days", "now_basket_size", "now_bought", "now_since_days")
_MS_PER_DAY = 86_400_000.0


@dataclass(frozen=True)
class CategoryCounts:
    """The constants, counted on training users.

    Attributes:
        of_item: position of each item's category, -1 for none, `[I]`.
        share: of baskets that hold each category, `[C]`.
        rate: of moments after a basket: how often each is bought within the horizon, `[C]`.
        arrival_rate: the same of the moments before users' first baskets, `[C]`.
        horizon_days: a scalar.
    """

    of_item: Tensor
    share: Tensor
    rate: Tensor
    arrival_rate: Tensor
    horizon_days: Tensor


class PurchaseIntent:
    """A model of one user's purchases by category.

    Args:
        counts: the constants.
        embedding_dim: E.
        hidden_dim: H.
    """

    adaptable = _HEAD | {"context"}
    head = _HEAD
    targets = ("purchase_intent",)

    def __init__(self, counts: CategoryCounts, *, embedding_dim: int, hidden_dim: int) -> None:
        self._counts = counts
        self._width, self._hidden = embedding_dim, hidden_dim
        self._log_share = counts.share.clamp(min=1e-6).log()

    def init(self, generator: torch.Generator) -> Params:
        """Category vectors of noise, and a head that reads the frequency alone."""
        num_categories, width, hidden = len(self._counts.share), self._width, self._hidden
        fan_in = NUM_FEATURES + 2 * width

        def noise(*shape: int, scale: float) -> Tensor:
            return torch.randn(*shape, generator=generator) * scale

        head = torch.zeros(NUM_FEATURES + hidden)
        head[0] = 1.0
        return {
            "base": torch.logit(self._counts.rate, eps=1e-3),
            "arrival": torch.logit(self._counts.arrival_rate, eps=1e-3),
            "category": noise(num_categories, width, scale=width**-0.5),
            "taste": noise(num_categories, width, scale=0.1 / num_categories**0.5),
            "first": noise(fan_in, hidden, scale=(2.0 / fan_in) ** 0.5),
            "first_bias": torch.zeros(hidden),
            "head": head,
            "bias": torch.zeros(()),
            "context": torch.zeros(width),
            "log_prior_baskets": torch.tensor(1.0),
            "log_prior_rows": torch.tensor(4.0),
        }

    def tables(self) -> Params:
        counts = self._counts
        return {
            "category_of_item": counts.of_item,
            "category_share": counts.share,
            "category_rate": counts.rate,
            "arrival_rate": counts.arrival_rate,
            "horizon_days": counts.horizon_days,
        }

    def shared(self, params: Params) -> Params:
        """Nothing: a category's part is a few numbers."""
        del params
        return {}

    def read(self, params: Params, support: Examples) -> Params:
        """The user's own parameters, and what is known after the last event."""
        own = {name: params[name] for name in sorted(self.adaptable)}
        return {**own, "last_ms": support["last_ms"], **{n: support[n] for n in _STATE}}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """Sum over decided rows of the cross-entropy / (rows + c), c learned."""
        del shared
        mask = support["mask"][:, None].expand_as(support["label"])
        losses = binary_cross_entropy_with_logits(
            self._logits(params, support), support["label"], reduction="none"
        )
        size = mask.sum().to(losses.dtype)
        return torch.where(mask, losses, 0.0).sum() / (size + params["log_prior_rows"].exp())

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """Sum over the rows after the support of the cross-entropy."""
        del shared
        logits = self._logits(params, self._at({**support, **query}, query["now_ms"]))
        losses = binary_cross_entropy_with_logits(logits, query["label"], reduction="none")
        mask = query["mask"][:, None].expand_as(losses)
        return torch.where(mask, losses, 0.0).sum() / ROWS_OF_UNIT_LOSS

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """Logits of the items' categories right after the last event; -16 for an item of none."""
        del shared
        logits = self._logits(params, self._at(params, params["last_ms"][None]))[0]
        category = self._counts.of_item if candidates is None else self._counts.of_item[candidates]
        return torch.where(category >= 0, logits[category.clamp(min=0)], -16.0)

    def predict(self, params: Params, shared: Params, rows: Examples) -> Tensor:
        """Probabilities `[R, 1]`.

        Args:
            rows: `now_ms` float64, one moment for all; and `category` int64 `[R]` or `item`, of
                which the category is asked about; an item of none gets 0.
        """
        del shared
        category = rows["category"] if "category" in rows else self._counts.of_item[rows["item"]]
        logits = self._logits(params, self._at(params, rows["now_ms"][None]))[0]
        found = torch.sigmoid(logits[category.clamp(min=0)])
        return torch.where(category >= 0, found, 0.0)[:, None]

    def _at(self, known: Examples, now_ms: Tensor) -> Examples:
        """What is known at moments `[R]` after the last event, from what was known at it."""
        some = known["now_num_baskets"] > 0
        silent = ((now_ms - known["last_ms"]) / _MS_PER_DAY).clamp(min=0.0)
        silent = torch.where(some, silent, 0.0).to(known["now_num_days"].dtype)
        bought, shape = known["now_bought"], (len(now_ms), len(known["now_bought"]))
        since = known["now_since_days"] + silent[:, None]
        return {
            "num_baskets": known["now_num_baskets"].expand(len(now_ms)),
            "num_days": known["now_num_days"] + silent,
            "silent_days": silent,
            "basket_size": known["now_basket_size"].expand(len(now_ms)),
            "bought": bought.expand(shape),
            "since_days": torch.where(bought > 0, since, 0.0),
        }

    def _logits(self, params: Params, known: Examples) -> Tensor:
        """`[M, C]`, of what is known at M moments."""
        features = self._features(params, known)
        category = params["category"]
        taste = features[..., 0] @ params["taste"]
        both = taste[:, None] * category
        each = category.expand(len(taste), *category.shape)
        hidden = torch.cat([features, each, both], -1) @ params["first"] + params["first_bias"]
        inputs = torch.cat([features, torch.relu(hidden)], -1)
        personal = (params["context"] + taste) @ category.T
        is_first = known["num_baskets"][:, None] == 0
        base = torch.where(is_first, params["arrival"], params["base"])
        return base + inputs @ params["head"] + personal + params["bias"]

    def _features(self, params: Params, known: Examples) -> Tensor:
        """f, `[M, C, F]`; logarithms of counts and of times in horizons."""
        share, horizon = self._counts.share, self._counts.horizon_days
        bought, num_baskets = known["bought"], known["num_baskets"][:, None]
        prior = params["log_prior_baskets"].exp()
        frequency = ((bought + prior * share) / (num_baskets + prior)).log() - self._log_share
        num_horizons = known["num_days"][:, None] / horizon
        visits = ((num_baskets + 1.0) / (num_horizons + 1.0)).log()
        usual_gap = (num_horizons + 1.0) * horizon / (bought + 1.0)
        late = torch.where(bought > 0, ((known["since_days"] + 1.0) / usual_gap).log(), 0.0)
        per_user = [
            visits,
            torch.log1p(known["silent_days"][:, None] / horizon),
            0.5 * torch.log1p(num_baskets),
            0.5 * torch.log1p(num_horizons),
            torch.log1p(known["basket_size"][:, None]) * 0.5,
            (num_baskets == 0).to(visits.dtype),
        ]
        columns = [
            frequency,
            late,
            0.5 * torch.log1p(known["since_days"] / horizon),
            (bought > 0).to(visits.dtype),
            self._log_share.expand_as(bought) * 0.5,
            *(column.expand_as(bought) for column in per_user),
        ]
        return torch.stack(columns, -1)
