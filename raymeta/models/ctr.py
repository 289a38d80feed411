"""Clicks and conversions of an impression: embeddings, their products and a deep part, two heads.

    phi(u, j, c)  = [s_u * s_j, s_c * (s_u + s_j), MLP(user, item, slot)]
    click logit   = prior click logit of j      + phi . head_click + bias_click
    pCTR          = sigmoid(click logit),   pCTCVR = pCTR * pCVR

s is the sum of the embeddings of all features of the user, the item or the slot, so that products
of sums are those of a factorization machine, before they are summed over the width (He and Chua:
Neural Factorization Machines, SIGIR 2017, eq. 3; beside a deep part as in DeepFM, Guo et al. 2017).
Clicks and conversions are learned over all impressions by the decomposition of Ma et al. (Entire
Space Multi-Task Model, SIGIR 2018, eq. 1 and 5). Differs from it:

- the prior of an item is kept beside what is learned: its own click rate so far, smoothed by a
  learned number of impressions towards the rate that its features make expected, which is what an
  item begins with that nobody has seen; its own row is left out in training;
- heads, their biases and a vector that is added to s_u are a user's own. Where the biases and the
  deep part begin is read off the support: how many rows, and how far above what the items have
  anyway (a learned start, as in an amortised one); the inner steps go on from there.

A user's rows are summed as if there were more of no loss (`support_loss`), so that one impression
moves a user less than twenty do.

Shapes: S support rows, Q query rows, C candidates, I items, W slots of features, E width of an
embedding, H width of the deep part, 2 for (click, conversion).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from raymeta.models.embeddings import FieldEmbedding
from raymeta.types import Examples, Params

ROWS_OF_UNIT_LOSS = 8.0
"""A query's loss is summed over its impressions, in units of so many."""

NUM_KNOWN = 8
"""What is known of a support so far, beside its rows."""

_HEAD = frozenset({"head", "head_bias"})


@dataclass(frozen=True)
class ItemCounts:
    """The constants of the catalogue and of the places where it is shown.

    Attributes:
        index, weight: vocabulary rows of each item's features and their weights, `[I, W]`.
        counts: impressions, clicks and conversions of each item in training, `[I, 3]`.
        slots: impressions by number of the slot in training, `[N]`; 0 is no slot.
    """

    index: Tensor
    weight: Tensor
    counts: Tensor
    slots: Tensor


class Ctr:
    """A model of one user's clicks and conversions.

    Args:
        items: the constants.
        item_embedding, user_embedding: how features are embedded; a user may have none.
        hidden_width: H.
    """

    adaptable = _HEAD | {"context"}
    head = _HEAD
    targets = ("click", "conversion")

    def __init__(
        self,
        items: ItemCounts,
        *,
        item_embedding: FieldEmbedding,
        user_embedding: FieldEmbedding,
        hidden_width: int,
    ) -> None:
        self._items = items
        self._embed_item, self._embed_user = item_embedding, user_embedding
        self._width, self._hidden = item_embedding.width, hidden_width
        self._usual_slot = int(items.slots.argmax())

    def init(self, generator: torch.Generator) -> Params:
        """Small embeddings and heads of zero: before training the score is the item's prior."""
        width, hidden = self._width, self._hidden
        parts = (self._embed_user.output_width, self._embed_item.output_width, width)

        def layer(rows: int, fan_in: int) -> Tensor:
            return torch.randn(rows, hidden, generator=generator) * (2.0 / fan_in) ** 0.5

        slots = torch.randn(len(self._items.slots), width, generator=generator)
        return {
            "item_embedding": 0.3 * self._embed_item.init(generator),
            "user_embedding": 0.3 * self._embed_user.init(generator),
            "slot_embedding": 0.3 * slots / width**0.5,
            "first_user": layer(parts[0], sum(parts)),
            "first_item": layer(parts[1], sum(parts)),
            "first_slot": layer(parts[2], sum(parts)),
            "first_known": torch.zeros(NUM_KNOWN, hidden),
            "first_bias": torch.zeros(hidden),
            "user_sum": torch.zeros(width),
            "head": torch.zeros(2, 2 * width + hidden),
            "head_known": torch.zeros(NUM_KNOWN, 2),
            "head_bias": torch.zeros(2),
            "context": torch.zeros(width),
            "log_prior_impressions": torch.full((2,), 3.0),
            "prior_generated": torch.zeros(self._embed_item.output_width, 2),
            "prior_scale": torch.ones(2),
            "log_prior_rows": torch.tensor(1.0),
            "log_rate_rows": torch.full((2,), 1.5),
        }

    def tables(self) -> Params:
        items = self._items
        return {
            "item_index": items.index,
            "item_weight": items.weight,
            "item_counts": items.counts,
            "slot_counts": items.slots,
        }

    def shared(self, params: Params) -> Params:
        """The items' sums `[I, E]`, their part of the deep layer `[I, H]`, and the rates that an
        item of such features is expected to have, as logits `[I, 2]`."""
        items = self._embedded(params, slice(None))
        return {
            "sums": self._sum_of_fields(items),
            "deep": items @ params["first_item"],
            "expected": self._expected(params, items),
        }

    def given(self, params: Params, support: Examples) -> Params:
        """Where the user begins: features make `user_sum` `[E]` and a part of the deep layer `[H]`,
        what is known of the support so far another part of it and of the heads' biases `[2]`."""
        known = self._known(params, support)
        start = {
            "first_bias": params["first_bias"] + known @ params["first_known"],
            "head_bias": params["head_bias"] + known @ params["head_known"],
        }
        if self._embed_user.num_fields == 0:
            return start
        user = self._embed_user(
            params["user_embedding"], support["user_index"], support["user_weight"]
        )
        start["user_sum"] = self._sum_of_fields(user)
        start["first_bias"] = start["first_bias"] + user @ params["first_user"]
        return start

    def _known(self, params: Params, support: Examples) -> Tensor:
        """The size of a support and how far its labels are from the items' own rates, `[K]`.

        For each head, over its n rows (all; those clicked), the log odds of the user's rate so far
        and of the rate that the items have anyway, both with c more rows at the base rate: their
        difference, and with log(1 + n) what is left to learn of how users go on.
        """
        generated = self._expected(params, self._embedded(params, support["item"]))
        expected = torch.sigmoid(self._prior(params, support, generated))
        labels = torch.stack([support["click"], support["conversion"]], -1)
        tried = support["mask"].to(labels.dtype)
        rows = torch.stack([tried, tried * support["click"]], -1)
        size, c = rows.sum(0), params["log_rate_rows"].exp()
        total = self._items.counts.sum(0)
        base = (total[1:] + 1.0) / (total[:2] + 2.0)
        rate = ((rows * labels).sum(0) + c * base) / (size + c)
        usual = ((rows * expected).sum(0) + c * base) / (size + c)
        lift = torch.logit(rate, eps=1e-4) - torch.logit(usual, eps=1e-4)
        above = (rows * (labels - expected)).sum(0) / (size + c)
        n = torch.log1p(tried.sum()) / 3.0
        return torch.cat([lift, above, n[None], (n * n)[None], n * lift])

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        """Sum over impressions of the loss / (n + c), c learned."""
        losses, mask = self._losses(params, shared, support)
        size = mask.sum().to(losses.dtype)
        return torch.where(mask, losses, 0.0).sum() / (size + params["log_prior_rows"].exp())

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """Sum over the later impressions of the two cross-entropies, which is what is measured."""
        del support
        losses, mask = self._losses(params, shared, query)
        return torch.where(mask, losses, 0.0).sum() / ROWS_OF_UNIT_LOSS

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """Click logits in the slot that most impressions were in."""
        if candidates is None:
            candidates = torch.arange(len(self._items.counts))
        rows = {"item": candidates, "value": torch.zeros_like(candidates)}
        return self._logits(params, shared, rows)[..., 0]

    def predict(self, params: Params, shared: Params, rows: Examples) -> Tensor:
        """(pCTR, pCTCVR) of impressions `[C, 2]`; `item` and `value`, the slot's number, `[C]`."""
        click, conversion = torch.sigmoid(self._logits(params, shared, rows)).unbind(-1)
        return torch.stack([click, click * conversion], -1)

    def _embedded(self, params: Params, item: Tensor | slice) -> Tensor:
        """Embeddings of the features of items `[..., F * E]`."""
        index, weight = self._items.index[item], self._items.weight[item]
        return self._embed_item(params["item_embedding"], index, weight)

    def _expected(self, params: Params, embedded: Tensor) -> Tensor:
        """The logits `[..., 2]` that an item which nobody saw begins with."""
        total = self._items.counts.sum(0)
        overall = (total[1:] + 1.0) / (total[:2] + 2.0)
        return torch.logit(overall) + embedded @ params["prior_generated"]

    def _sum_of_fields(self, joined: Tensor) -> Tensor:
        """`[..., F * E]` to `[..., E]`."""
        return joined.reshape(*joined.shape[:-1], -1, self._width).sum(-2)

    def _losses(self, params: Params, shared: Params, rows: Examples) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the click and of the conversion, added, and which rows count."""
        click, conversion = self._logits(params, shared, rows).unbind(-1)
        clicked, converted = rows["click"], rows["conversion"]
        log_both = logsigmoid(click) + logsigmoid(conversion)
        both = log_both.exp().clamp(max=1.0 - 1e-6)
        loss = -clicked * logsigmoid(click) - (1.0 - clicked) * logsigmoid(-click)
        loss = loss - converted * log_both - (1.0 - converted) * torch.log1p(-both)
        return loss, rows["mask"]

    def _logits(self, params: Params, shared: Params, rows: Examples) -> Tensor:
        """Of a click, and of a conversion given the click, `[..., 2]`."""
        item = rows["item"]
        slot = rows["value"].long()
        known = (slot > 0) & (slot < len(self._items.slots))
        place = params["slot_embedding"][torch.where(known, slot, self._usual_slot)]
        user = params["user_sum"] + params["context"]
        items = shared["sums"][item]
        deep = shared["deep"][item] + place @ params["first_slot"] + params["first_bias"]
        phi = torch.cat([user * items, place * (user + items), torch.relu(deep)], -1)
        learned = phi @ params["head"].T + params["head_bias"]
        return self._prior(params, rows, shared["expected"][item]) + learned

    def _prior(self, params: Params, rows: Examples, expected: Tensor) -> Tensor:
        """The items' own rates so far, smoothed towards those `expected` `[S, 2]`, as logits.

        A row that the counts were made with (`counted` 1, in training) is taken out of them.
        """
        shown, clicks, conversions = self._items.counts[rows["item"]].unbind(-1)
        if "counted" in rows:
            shown = shown - rows["counted"]
            clicks = clicks - rows["counted"] * rows["click"]
            conversions = conversions - rows["counted"] * rows["conversion"]
        smoothing = params["log_prior_impressions"].exp()
        hits = torch.stack([clicks, conversions], -1).clamp(min=0.0)
        tries = torch.stack([shown, clicks], -1).clamp(min=0.0)
        rate = (hits + smoothing * torch.sigmoid(expected)) / (tries + smoothing)
        return params["prior_scale"] * torch.logit(rate, eps=1e-4)
