"""Baselines of clicks and conversions that know what ours knows, the user's own support included.

A user's support comes to them as columns: how many impressions, the user's rate so far, the rate
above what the items have anyway, and the same among impressions that share a feature with the
candidate, each smoothed. Item rates in training are counted on other users: a rate that leaves out
the row alone would tell a tree what its label is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.episodes import labelled_impressions
from raymeta.data.events import support_from_events
from raymeta.data.features import EncodedFeatures
from raymeta.data.impressions import Labelled
from raymeta.data.task_split import TaskSplit
from raymeta.evaluation.baselines import tabular
from raymeta.evaluation.baselines.tabular import Columns, Fitted
from raymeta.evaluation.labelled import TARGETS, CutUsers, cut_users

Floats = NDArray[np.float64]
BASELINES = ("base_rate", "item_rate", "own_rate", "logistic_regression", "boosting")
GRIDS: dict[str, tuple[float, ...]] = {
    "item_rate": (1.0, 3.0, 10.0, 30.0, 100.0),
    "own_rate": (0.3, 1.0, 3.0, 10.0, 30.0),
    "logistic_regression": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
    "boosting": (2, 3, 4, 7, 15, 31),
}
"""Settings by validation log loss: impressions of smoothing, inverse penalty, leaves."""

NUM_GROUPS = 10
"""Groups of training users, each with item rates of the other groups."""

SMOOTHING = 5.0
"""Impressions at the base rate that a user's and an item's rate in the columns start with."""


class ClickColumns:
    """Makes columns from cut users; `counts` are impressions, clicks and conversions of the item
    in training, and of the user in the support, `[N, 6]`.

    Args:
        split: catalogue, features, and the training users that items are counted on.
    """

    def __init__(self, split: TaskSplit) -> None:
        self._split = split
        parts = [
            labelled_impressions(split.train.shard(group, NUM_GROUPS), split.view)
            for group in range(NUM_GROUPS)
        ]
        num_items = len(split.catalogue)
        self._of_group = np.stack([_counted(part, num_items) for part in parts])
        self._counts = self._of_group.sum(0)
        self.base = self._counts[:, 1:].sum(0) / self._counts[:, 0].sum()
        self._num_slots = int(max(part.value.max(initial=0.0) for part in parts)) + 1
        self._features = split.catalogue.features
        self._field = np.array(split.catalogue.vocab.field_of_slot)

    def of(self, cuts: Sequence[CutUsers], *, counted: bool) -> Columns:
        """The columns of all later impressions; `counted` of the training users, whose own tenth of
        the users is taken out of the items' counts."""
        return tabular.stacked([self._of_cut(cut, counted=counted) for cut in cuts])

    def _of_cut(self, cut: CutUsers, *, counted: bool) -> Columns:
        lengths = [len(query) for query in cut.queries]
        item = np.concatenate([query.item for query in cut.queries])
        slot = np.concatenate([query.value for query in cut.queries]).astype(np.int64)
        slot = np.where(slot < self._num_slots, slot, 0)
        labels = cut.rows()[list(TARGETS)].to_numpy(np.float64)
        counts = self._counts_for(np.repeat(cut.user_rows, lengths), item, counted=counted)
        support = support_from_events(cut.supports, self._split.view)
        known = support["mask"].numpy()[:, None] * np.stack(
            [np.ones(support["mask"].shape), *(support[target].numpy() for target in TARGETS)], 1
        )
        own = np.repeat(known.sum(2), lengths, axis=0)
        taste = [self._own(cut, support, row, counted=counted) for row in range(len(cut))]
        numbers = np.column_stack([np.concatenate(taste), self.rates(counts, SMOOTHING)])
        parts = [tabular.one_hot(slot, self._num_slots)]
        codes = [slot[:, None], self._features.index[item]]
        parts.append(self._features.take(item).matrix(self._split.catalogue.vocab.num_rows))
        if self._split.user_vocab is not None:
            user = _user_features(cut).take(np.repeat(np.arange(len(cut)), lengths))
            codes.append(user.index)
            parts.append(user.matrix(self._split.user_vocab.num_rows))
        return Columns(
            labels,
            np.column_stack([counts, own]),
            numbers,
            np.column_stack(codes),
            sparse.hstack(parts).tocsr(),
        )

    def rates(self, counts: Floats, smoothing: float) -> Floats:
        """Click and conversion rates of impressions, smoothed towards the base rates, `[N, 2]`."""
        tries = np.maximum(counts[:, :1], 0.0) + smoothing
        return (np.maximum(counts[:, 1:], 0.0) + smoothing * self.base) / tries

    def _counts_for(
        self, user_row: NDArray[np.int64], item: NDArray[np.int64], *, counted: bool
    ) -> Floats:
        """Counts of items `[N, 3]`, for users who are counted less those of their own group."""
        counts = self._counts[item]
        return counts - self._of_group[user_row % NUM_GROUPS, item] if counted else counts

    def _own(self, cut: CutUsers, support: dict[str, Any], row: int, *, counted: bool) -> Floats:
        """Columns from one user's support for each later impression, `[Q, ...]`."""
        query, mask = cut.queries[row], support["mask"][row].numpy()
        known = support["item"][row].numpy()[mask]
        labels = np.stack([support[t][row].numpy()[mask] for t in TARGETS], 1).astype(np.float64)
        counts = self._counts_for(np.full(len(known), cut.user_rows[row]), known, counted=counted)
        above = labels - self.rates(counts, SMOOTHING)
        same_slot = query.value[:, None] == support["value"][row].numpy()[mask]
        masks = [
            np.ones((len(query), len(known)), bool),
            same_slot,
            *self._shared(query.item, known),
        ]
        columns = [np.full((len(query), 1), float(len(known)))]
        for alike in masks:
            number = alike.sum(1, keepdims=True)
            columns.append(number)
            columns.append((alike @ above) / (number + SMOOTHING))
        rate = (labels.sum(0) + SMOOTHING * self.base) / (len(known) + SMOOTHING)
        columns.append(np.tile(rate, (len(query), 1)))
        return np.column_stack(columns)

    def _shared(self, item: NDArray[np.int64], known: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
        """For each field, whether two items have a known value of it in common, `[Q, S]` each."""
        found = []
        for field, first in enumerate(self._split.catalogue.vocab.first_row):
            slots = np.flatnonzero(self._field == field)
            one, other = self._features.index[item][:, slots], self._features.index[known][:, slots]
            used = (one > first)[:, None, :, None]
            found.append(((one[:, None, :, None] == other[None, :, None, :]) & used).any((2, 3)))
        return found


def _counted(shown: Labelled, num_items: int) -> Floats:
    """Impressions, clicks and conversions of each item, `[I, 3]`."""
    weights = (None, shown.click, shown.conversion)
    return np.stack([np.bincount(shown.item, w, num_items) for w in weights], axis=1)


def tuned_baselines(
    split: TaskSplit,
    sizes: Sequence[int],
    names: Sequence[str],
    *,
    note: Callable[[str], None],
) -> tuple[dict[str, Callable[[CutUsers], Floats]], dict[str, Any]]:
    """Each baseline as a function of cut users to (pCTR, pCTCVR) `[N, 2]`, and how it was tuned."""
    columns = ClickColumns(split)
    train = columns.of(cut_users(split.train, sizes, split.view), counted=True)
    validation = columns.of(cut_users(split.validation, sizes, split.view), counted=False)
    fits = {name: partial(_fit, name, train=train, columns=columns) for name in names}
    methods, facts = tabular.tune(fits, GRIDS, validation, note=note)
    return {name: _from_cut(fitted, columns) for name, fitted in methods.items()}, facts


def _from_cut(fitted: Fitted, columns: ClickColumns) -> Callable[[CutUsers], Floats]:
    return lambda cut: fitted(columns.of([cut], counted=False))


def _fit(name: str, setting: float, *, train: Columns, columns: ClickColumns) -> Fitted:
    if name == "base_rate":
        return lambda rows: np.tile(columns.base, (len(rows.labels), 1))
    if name == "item_rate":
        return lambda rows: columns.rates(rows.counts[:, :3], setting)
    if name == "own_rate":
        return lambda rows: columns.rates(rows.counts[:, 3:], setting)
    return tabular.fit_model(name, setting, train)


def _user_features(cut: CutUsers) -> EncodedFeatures:
    rows = [support.features for support in cut.supports]
    known = [row for row in rows if row is not None]
    assert len(known) == len(rows), "data.user_features gives every user a row"
    return EncodedFeatures(
        np.stack([row.index for row in known]), np.stack([row.weight for row in known]), {}
    )
