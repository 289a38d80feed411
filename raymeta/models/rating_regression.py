"""A rating as a Bayesian linear regression of one user, with a prior that is meta-learned.

    r_uj = mean_j + z_j . w_u + noise,    w_u ~ N(0, 1),    noise ~ N(0, s^2 + t^2 / (n_j + c))

    mean_j = m + x_j . b + d_j,    d_j = sum over raters of (r - b_u - m - x_j . b) / (n_j + c)
    z_j    = [a * x_j, a' d_j, a'' v_j]

x_j is a one, the log of how often j was rated, and the features of j; d_j is what the n_j training
users who rated it thought of it beyond that, shrunk by c ratings, their own biases b_u taken off;
v_j are vectors of items that were fitted before (`data.rating_factors`), which may be of width 0.
The posterior mean of w_u given a support is a ridge regression with a penalty of one on rows
divided by their noise (Bishop: Pattern Recognition and Machine Learning, 2006, eq. 3.53-3.54),
which `RidgeStart` solves; so adapting takes no inner steps. What all users share, which is b, the
prior's standard deviations a, the noise s and t and the shrinkage c, is learned by the outer loop
on what users rate later. This is ALPaCA's learner (Harrison, Sharma, Pavone: Meta-Learning Priors
for Efficient Online Bayesian Regression, WAFR 2018, section 3) on features that are not learned: a
few hundred users do not bear more.

Ratings are a few levels l_0 < l_1 < ..., and an absolute error is least at the median, which is one
of them. What is predicted is a staircase with soft steps at learned thresholds h:

    l_0 + sum_k (l_k - l_(k-1)) sigmoid((mean_j + z_j . w_u - h_k) / width)

A training user's own ratings are in the sums of the items that it rated. A row that they were
counted with (`counted` and `counted_value`) is taken out of them, and its v_j is that of the
user's `group`, which was fitted without the group.

Shapes: S support rows, Q query rows, I items, C candidates, W slots of features, V rows of the
features' vocabulary, E width of v, D = V + 3 + E width of z, L levels, G groups.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raymeta.models.base import masked_mean
from raymeta.types import Examples, Params

OuterLoss = Literal["error", "order"]


@dataclass(frozen=True)
class RatedItems:
    """The constants of the catalogue.

    Attributes:
        index, weight: vocabulary rows of each item's features and their weights, `[I, W]`.
        counts: number of ratings of each item in training, and the sum of r - b_u - m, `[I, 2]`.
        mean: m, the mean of all ratings, `[]`.
        log_count: the mean over items of log(1 + n_j), `[]`.
        levels: the ratings that there are, ascending, `[L]`; none where they are not a few.
        num_rows: V.
        vectors: v of all training users, and of those outside each group, `[1 + G, I, E]`; a
            table that only serves has the first.
    """

    index: Tensor
    weight: Tensor
    counts: Tensor
    mean: Tensor
    log_count: Tensor
    levels: Tensor
    num_rows: int
    vectors: Tensor


class RatingRegression:
    """A model of one user's ratings as a vector of weights.

    Args:
        items: the constants.
        item_shrinkage: start value of c.
        outer_loss: `error` (mean absolute error of the staircase) or `order` (mean over pairs with
            different ratings of the logistic loss of the difference).
    """

    adaptable = frozenset({"taste"})
    head = frozenset({"taste"})
    head_weight = "taste"
    head_bias = None

    def __init__(
        self, items: RatedItems, *, item_shrinkage: float = 6.0, outer_loss: OuterLoss = "error"
    ) -> None:
        self._items, self._item_shrinkage, self._outer_loss = items, item_shrinkage, outer_loss

    def init(self, generator: torch.Generator) -> Params:
        """A kindness of .45 levels from user to user, .2 a feature; nothing is drawn."""
        del generator
        like = self._items.counts
        width = self._items.num_rows + 2
        deviations = like.new_full((width,), math.log(0.2))
        deviations[0] = math.log(0.45)
        levels = self._items.levels
        return {
            "taste": like.new_zeros(1, width + 1 + self._items.vectors.shape[-1]),
            "prior_mean": like.new_zeros(width),
            "log_deviation": deviations,
            "log_crowd_deviation": like.new_tensor(0.1).log(),
            "log_vector_deviation": like.new_zeros(()),
            "log_noise": like.new_tensor(0.9).log(),
            "log_item_spread": like.new_zeros(()),
            "log_item_shrinkage": like.new_tensor(self._item_shrinkage).log(),
            "threshold": (levels[1:] + levels[:-1]) / 2.0,
            "log_step_width": like.new_tensor(0.3).log(),
        }

    def tables(self) -> Params:
        items = self._items
        return {
            "item_index": items.index,
            "item_weight": items.weight,
            "item_counts": items.counts,
            "mean_rating": items.mean,
            "mean_log_count": items.log_count,
            "levels": items.levels,
            "rated_vectors": items.vectors[0],
        }

    def shared(self, params: Params) -> Params:
        """mean `[I]` and z `[I, D]` of the catalogue as it is served."""
        mean, features, _ = self._rows(params, {"item": torch.arange(len(self._items.counts))})
        return {"mean": mean, "features": features}

    def features(self, params: Params, examples: Examples) -> Tensor:
        """z over the noise of each row, `[S, D]`; 0 where the rating is not known."""
        _, features, noise = self._rows(params, examples)
        known = examples["mask"] & (examples["value"] != 0)
        return torch.where(known[:, None], features / noise[:, None], 0.0)

    def targets(self, params: Params, examples: Examples) -> Tensor:
        """The rating less its mean, over the noise of each row, `[S, 1]`."""
        mean, _, noise = self._rows(params, examples)
        return ((examples["value"] - mean) / noise)[:, None]

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """-log of the posterior of w_u, up to a constant; least where the ridge start begins."""
        del shared
        fitted = self.features(params, support) @ params["taste"].T
        known = support["mask"] & (support["value"] != 0)
        residual = torch.where(known, (self.targets(params, support) - fitted)[:, 0], 0.0)
        size = known.any().to(residual.dtype)
        return 0.5 * (residual.square().sum() + size * params["taste"].square().sum())

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        del shared, support
        mean, features, _ = self._rows(params, query)
        expected = mean + features @ params["taste"][0]
        ratings, known = query["value"], query["mask"] & (query["value"] != 0)
        if self._outer_loss == "error":
            return masked_mean((self._staircase(params, expected) - ratings).abs(), known)
        better = (ratings[:, None] > ratings) & known[:, None] & known
        width = params["log_step_width"].exp()
        losses = softplus((expected - expected[:, None]) / width)
        return masked_mean(losses.flatten(), better.flatten())

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """Ratings that are expected, in the units of the ratings."""
        mean, features = shared["mean"], shared["features"]
        if candidates is not None:
            mean, features = mean[candidates], features[candidates]
        return self._staircase(params, mean + features @ params["taste"][0])

    def _staircase(self, params: Params, expected: Tensor) -> Tensor:
        levels = self._items.levels
        if len(levels) == 0:
            return expected
        above = (expected[..., None] - params["threshold"]) / params["log_step_width"].exp()
        return levels[0] + torch.sigmoid(above) @ (levels[1:] - levels[:-1])

    def _rows(self, params: Params, rows: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """mean `[S]`, z `[S, D]` and the noise's standard deviation `[S]` of rows of items."""
        items = self._items
        count, total = items.counts[rows["item"]].unbind(-1)
        if "counted" in rows:
            count = count - rows["counted"]
            total = total - rows["counted_value"]
        columns = self._columns(rows["item"], count)
        expected = columns @ params["prior_mean"]
        weight = count + params["log_item_shrinkage"].exp()
        beyond = (total - count * expected) / weight
        noise = params["log_noise"].mul(2).exp() + params["log_item_spread"].mul(2).exp() / weight
        crowd = params["log_crowd_deviation"].exp() * beyond
        vectors = items.vectors[rows.get("group", 0), rows["item"]]
        taste = params["log_vector_deviation"].exp() * vectors
        features = torch.cat([columns * params["log_deviation"].exp(), crowd[:, None], taste], 1)
        return items.mean + expected + beyond, features, noise.sqrt()

    def _columns(self, item: Tensor, count: Tensor) -> Tensor:
        """x, `[S, V + 2]`."""
        items = self._items
        weight = items.weight[item]
        named = weight.new_zeros(len(item), items.num_rows)
        named = named.scatter_add(1, items.index[item], weight)
        often = torch.log1p(count.clamp(min=0.0)) - items.log_count
        return torch.cat([torch.ones_like(often)[:, None], often[:, None], named], 1)
