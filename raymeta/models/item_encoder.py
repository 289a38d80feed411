"""What an item that training never saw has in a model's tables, read off its features.

A ridge regression of each table (item vectors, prior) on the encoded features of the training
items, in closed form: with X the `[I, V]` features and Y the table, both centred, and w the weight
of each item on the diagonal of W,

    B = (X' W X + penalty 1)^-1 X' W Y,    encode(x) = mean(Y) + (x - mean(X)) B

The linear map from content to factors of Gantner et al., "Learning Attribute-to-Feature Mappings
for Cold-Start Recommendations", ICDM 2010, section IV-B. Differs: items weigh as they sell, so that
what is encoded is what a purchase of such an item is like and not what most such items are like,
which nobody buys; the penalty is chosen, for each table, on items held out of the fit.

Shapes: I items, V vocabulary rows, N items to encode, M columns of a table.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from raymeta.errors import DataError
from raymeta.seeding import numpy_generator
from raymeta.types import Params

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""In items: a value must be on about so many items before its effect is half believed."""

HELD_OUT = 0.2
"""Share of the training items on which penalties are compared."""

MAX_COLUMNS = 6000
"""The most frequent vocabulary rows that are fitted; the solve takes MAX_COLUMNS^3 / 3 flops."""

MIN_ITEMS = 20
"""Fewer items leave nothing to choose a penalty on."""


@dataclass(frozen=True)
class ItemEncoder:
    """A linear map for each table.

    Attributes:
        weights: name -> `[V, M]`.
        intercepts: name -> `[M]`.
        penalties: name -> the penalty that was chosen.
        explained: name -> share of the held-out items' variance that it explains (R^2).
        scalar: names of tables that are one number an item, `[I]`.
    """

    weights: Params
    intercepts: Params
    penalties: dict[str, float]
    explained: dict[str, float]
    scalar: frozenset[str]

    @classmethod
    def fit(cls, features: sparse.csr_array, tables: Params, *, weights: Tensor) -> "ItemEncoder":
        """Fits the map on training items.

        Args:
            features: X `[I, V]`.
            tables: name -> `[I, M]` or `[I]`; none where the model reads features itself.
            weights: how much each item counts, `[I]`, not negative.

        Raises:
            DataError: there are too few items.
        """
        num_items = features.shape[0]
        if not tables:
            return cls({}, {}, {}, {}, frozenset())
        if num_items < MIN_ITEMS:
            raise DataError(
                f"{num_items} items are too few to learn what features say of an item.",
                remedy=f"Give at least {MIN_ITEMS}, or leave the features out of schema.yaml.",
            )
        columns = {n: t.reshape(num_items, -1).double().numpy() for n, t in tables.items()}
        shuffled = numpy_generator(0, "item encoder").permutation(num_items)
        held, kept = np.split(shuffled, [round(HELD_OUT * num_items)])
        counted = weights.double().numpy() / float(weights.double().mean())
        penalties, explained = _choose_penalties(features, columns, counted, kept=kept, held=held)
        maps, intercepts = {}, {}
        ridge = _Ridge(features, counted)
        for name, table in columns.items():
            weight, intercept = ridge.solve(table, penalties[name])
            maps[name] = torch.from_numpy(weight.astype(np.float32))
            intercepts[name] = torch.from_numpy(intercept.astype(np.float32))
        scalar = frozenset(name for name, table in tables.items() if table.ndim == 1)
        return cls(maps, intercepts, penalties, explained, scalar)

    def encode(self, features: sparse.csr_array) -> Params:
        """Rows of each table for the items `[N, V]`: `[N, M]` or `[N]`."""
        rows: Params = {}
        for name, weight in self.weights.items():
            found = torch.from_numpy(features @ weight.numpy()) + self.intercepts[name]
            rows[name] = found[:, 0] if name in self.scalar else found
        return rows

    def tensors(self) -> Params:
        """The maps by flat name, to be saved."""
        weights = {f"{name}.weight": value for name, value in self.weights.items()}
        return weights | {f"{name}.intercept": value for name, value in self.intercepts.items()}

    def facts(self) -> dict[str, dict[str, float | bool]]:
        """What `restore` needs beside the tensors, by table."""
        return {
            name: {
                "penalty": self.penalties[name],
                "explained": self.explained[name],
                "scalar": name in self.scalar,
            }
            for name in self.weights
        }

    @classmethod
    def restore(cls, tensors: Params, facts: dict[str, dict[str, float | bool]]) -> "ItemEncoder":
        """What `tensors` and `facts` gave."""
        return cls(
            weights={name: tensors[f"{name}.weight"] for name in facts},
            intercepts={name: tensors[f"{name}.intercept"] for name in facts},
            penalties={name: float(fact["penalty"]) for name, fact in facts.items()},
            explained={name: float(fact["explained"]) for name, fact in facts.items()},
            scalar=frozenset(name for name, fact in facts.items() if fact["scalar"]),
        )


class _Ridge:
    """The regression on one set of items, for any table and penalty."""

    def __init__(self, features: sparse.csr_array, weights: NDArray[np.float64]) -> None:
        counts = np.bincount(features.indices, minlength=features.shape[1])
        self._columns = np.sort(np.argsort(-counts, kind="stable")[:MAX_COLUMNS])
        self._num_rows = features.shape[1]
        x = features[:, self._columns].astype(np.float64)
        self._weights = weights / weights.sum()
        self._mean = x.T @ self._weights
        self._weighted = x.multiply(weights[:, None]).tocsr()
        gram = (self._weighted.T @ x).toarray()
        self._gram = gram - weights.sum() * np.outer(self._mean, self._mean)

    def solve(
        self, table: NDArray[np.float64], penalty: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """B `[V, M]`, 0 at vocabulary rows that were not fitted, and the intercept `[M]`."""
        mean = self._weights @ table
        penalised = self._gram + penalty * np.eye(len(self._gram))
        solved = cho_solve(cho_factor(penalised), self._weighted.T @ (table - mean))
        weight = np.zeros((self._num_rows, table.shape[1]))
        weight[self._columns] = solved
        return weight, mean - self._mean @ solved


def _choose_penalties(
    features: sparse.csr_array,
    tables: dict[str, NDArray[np.float64]],
    weights: NDArray[np.float64],
    *,
    kept: NDArray[np.int64],
    held: NDArray[np.int64],
) -> tuple[dict[str, float], dict[str, float]]:
    """For each table the penalty of least squared error on the items `held`, and its R^2 there."""
    ridge = _Ridge(features[kept], weights[kept])
    joined = np.hstack(list(tables.values()))
    ends = np.cumsum([table.shape[1] for table in tables.values()])[:-1]
    errors: dict[str, dict[float, float]] = {name: {} for name in tables}
    for penalty in PENALTIES:
        weight, intercept = ridge.solve(joined[kept], penalty)
        residual = joined[held] - (features[held] @ weight + intercept)
        for name, part in zip(tables, np.split(residual, ends, axis=1), strict=True):
            errors[name][penalty] = float(weights[held] @ (part**2).sum(axis=1))
    chosen = {name: min(found, key=lambda p: found[p]) for name, found in errors.items()}
    explained = {}
    for name, table in tables.items():
        centre = np.average(table[kept], axis=0, weights=weights[kept])
        spread = float(weights[held] @ ((table[held] - centre) ** 2).sum(axis=1))
        explained[name] = 1.0 - errors[name][chosen[name]] / spread if spread > 0 else 0.0
    return chosen, explained
