"""MeLU's estimator: score(user, item j) = baseline_j + MLP(features of the user, features of j).

Lee, Im, Jang, Cho, Chung: MeLU: Meta-Learned User Preference Estimator for Cold-Start
Recommendation, KDD 2019, eq. 1-3: embeddings of categorical features of user and item, joined, then
fully connected layers. The embeddings stay as they are while a user is adapted to; the layers move
(section 3.2). Differs from the paper:

- a baseline of each item (its mean rating, or the log of its popularity) is added, so that what is
  learned is what the features and the user's own events add to it; it can be left out;
- the columns of the first layer that read the user's features are not fast: they are the same at
  every row of a task, so a step on them moves the layer as a step on its bias does;
- the columns that read the item's are not fast unless wanted: then the item half of the first layer
  is one matrix for all users, and a user's state is less than half as large;
- a user's rows are averaged as if there were some more of no loss (`support_loss`);
- an item may have an embedding of its own id beside those of its features;
- beside explicit ratings (squared error) there is implicit feedback.

Implicit feedback is noise-contrastive. The items of a task are told from K others that are as
frequent as their popularity, by logistic loss on MLP - log K; its minimum is
MLP = log p(j | user) / p(j), so that log-popularity + MLP ranks by p(j | user) (Mnih and Teh 2012,
section 4; Levy and Goldberg 2014, section 3.1). Nothing is drawn: which others is a function of the
items in the task (`hashed_noise`), so that adapting twice gives the same.

Shapes: S support rows, Q query rows, I items, C candidates, K noise items, W slots of features,
H width of a hidden layer, X width of an item's joined embeddings.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raymeta.models.base import masked_mean
from raymeta.models.embeddings import FieldEmbedding
from raymeta.seeding import hash_fraction
from raymeta.types import Examples, Params

ITEMS_PER_CHUNK = 4096
"""Items scored at once: with 64 users and H = 64, 64 MB of activations."""

_SALT = "raymeta/noise"
_NOISE_ROWS = 1021  # a prime, so that sums of item indices fall on all of them
_HEAD = frozenset({"output", "output_bias"})
_LAYERS = frozenset({"first_bias", "second", "second_bias"})


@dataclass(frozen=True)
class ItemFeatures:
    """The constants of the catalogue.

    Attributes:
        index: vocabulary rows of each item's features, int64 `[I, W]`.
        weight: their weights, `[I, W]`.
        baseline: what is known of each item without knowing the user, `[I]`.
        noise: for implicit feedback, what a task's items are told from, int64 `[P, K]`, a row a
            task; the same however the catalogue grows. None for ratings.
    """

    index: Tensor
    weight: Tensor
    baseline: Tensor
    noise: Tensor | None = None


class PreferenceMlp:
    """A model of one user's preference for items known by their features.

    Args:
        items: the catalogue.
        item_embedding, user_embedding: how features are embedded; a user may have none (F = 0).
        hidden_width: H.
        fast_first_layer: whether the first layer's item half may be a user's own, as in the paper.
        item_ids: whether an item has an embedding of its own beside those of its features. It
            starts at 0, which is also what an item that training never saw has.
    """

    head = _HEAD

    def __init__(
        self,
        items: ItemFeatures,
        *,
        item_embedding: FieldEmbedding,
        user_embedding: FieldEmbedding,
        hidden_width: int,
        fast_first_layer: bool = False,
        item_ids: bool = False,
    ) -> None:
        self._items = items
        self._embed_item, self._embed_user = item_embedding, user_embedding
        self._hidden = hidden_width
        self._fast_first = fast_first_layer
        self._item_width = item_embedding.output_width + item_ids * item_embedding.width
        self._item_ids = item_ids
        first = {"first_item"} if fast_first_layer else set()
        self.adaptable = _HEAD | _LAYERS | first

    def init(self, generator: torch.Generator) -> Params:
        """He's start, and an output of zero: before training the score is the baseline."""
        wide = self._item_width + self._embed_user.output_width

        def layer(rows: int, fan_in: int) -> Tensor:
            return torch.randn(rows, self._hidden, generator=generator) * (2.0 / fan_in) ** 0.5

        params = {
            "item_embedding": self._embed_item.init(generator),
            "user_embedding": self._embed_user.init(generator),
            "first_item": layer(self._item_width, wide),
            "first_user": layer(self._embed_user.output_width, wide),
            "first_bias": torch.zeros(self._hidden),
            "second": layer(self._hidden, self._hidden),
            "second_bias": torch.zeros(self._hidden),
            "output": torch.zeros(self._hidden),
            "output_bias": torch.zeros(()),
            "log_prior_rows": torch.zeros(()),
        }
        if self._item_ids:
            params["item_own"] = torch.zeros(len(self._items.baseline), self._embed_item.width)
        return {name: value.to(self._items.baseline) for name, value in params.items()}

    def tables(self) -> Params:
        items = self._items
        tables = {
            "item_index": items.index,
            "item_weight": items.weight,
            "item_baseline": items.baseline,
        }
        return tables if items.noise is None else {**tables, "noise": items.noise}

    def shared(self, params: Params) -> Params:
        """The items' half of the first layer, `[I, H]`; what it reads, `[I, X]`, if it is fast."""
        items = self._embed_item(params["item_embedding"], self._items.index, self._items.weight)
        if self._item_ids:
            items = torch.cat([items, params["item_own"]], -1)
        return {"items": items if self._fast_first else items @ params["first_item"]}

    def given(self, params: Params, support: Examples) -> Params:
        """The first layer's bias with the user's half added; all of the user that a score needs."""
        if self._embed_user.num_fields == 0:
            return {}
        user = self._embed_user(
            params["user_embedding"], support["user_index"], support["user_weight"]
        )
        return {"first_bias": params["first_bias"] + user @ params["first_user"]}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """Sum over rows of the loss / (n + c), c learned: the mean, trusted less where n is small.

        The paper takes the mean, so that one rating moves a user as far as a hundred do.
        """
        losses, counted = self._losses(params, shared, support, seen=None)
        size = counted.sum().to(losses.dtype)
        return torch.where(counted, losses, 0.0).sum() / (size + params["log_prior_rows"].exp())

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """Mean of the loss over the later items.

        What is in the support is no noise there: it is not later by definition, so that telling it
        from what is would teach that popular items, which are soon in a support, are not wanted.
        """
        baseline = self._items.baseline
        seen = torch.zeros_like(baseline).index_add(
            0, support["item"], support["mask"].to(baseline.dtype)
        )
        return masked_mean(*self._losses(params, shared, query, seen=seen > 0))

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """In units of the ratings, or up to a constant log p(item | user)."""
        if candidates is not None:
            logits = self._mlp(params, shared["items"][candidates])
            return self._items.baseline[candidates] + logits
        chunks = torch.split(shared["items"], ITEMS_PER_CHUNK)
        return self._items.baseline + torch.cat([self._mlp(params, chunk) for chunk in chunks])

    def _losses(
        self, params: Params, shared: Params, rows: Examples, *, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of each row and whether it counts; noise among `seen` `[I]` does not.

        A rating that is not known (0) does not count.
        """
        logits = self._mlp(params, shared["items"][rows["item"]])
        if self._items.noise is None:
            residual = rows["value"] - self._items.baseline[rows["item"]] - logits
            return residual.square(), rows["mask"] & (rows["value"] != 0)
        others = self._noise(rows)
        log_k = math.log(len(others))
        softplus = torch.nn.functional.softplus
        noise = softplus(self._mlp(params, shared["items"][others]) - log_k)
        if seen is not None:
            noise = torch.where(seen[others], 0.0, noise)
        return softplus(log_k - logits) + noise.sum(), rows["mask"]

    def _noise(self, rows: Examples) -> Tensor:
        """The K others of one task: a function of its set of items.

        Other users have others. Were they the same for all, those that a frequent item is told
        from would be taught to be unwanted.
        """
        assert self._items.noise is not None
        # kept as `[1]`: a scalar index is read out, which vmap cannot do
        task = torch.where(rows["mask"], rows["item"] + 1, 0).sum(-1, keepdim=True)
        return self._items.noise[task % len(self._items.noise)][0]

    def _mlp(self, params: Params, items: Tensor) -> Tensor:
        """The layers, from rows of `shared["items"]` `[..., H or X]` to `[...]`."""
        half = items @ params["first_item"] if self._fast_first else items
        hidden = torch.relu(half + params["first_bias"])
        hidden = torch.relu(hidden @ params["second"] + params["second_bias"])
        return hidden @ params["output"] + params["output_bias"]


def hashed_noise(log_popularity: Tensor, *, num_noise: int) -> Tensor:
    """Items as noise, int64 `[P, K]`, P = 1021, as frequent as softmax(log_popularity) in each row.

    A row is a systematic sample: the K places (k + u) / K of the cumulative distribution, with u in
    [0, 1) a hash of the row, so that an item's count is within 1 of what is expected of it.
    """
    cumulative = log_popularity.double().softmax(0).cumsum(0).numpy()
    offsets = np.array([hash_fraction(_SALT, str(row)) for row in range(_NOISE_ROWS)])
    places = (np.arange(num_noise) + offsets[:, None]) / num_noise * cumulative[-1]
    found = np.searchsorted(cumulative, places, side="right")
    return torch.from_numpy(np.minimum(found, len(cumulative) - 1).astype(np.int64))
