"""Logistic regression and boosted trees on columns, and how a setting is chosen: shared by the
baselines of all scenarios that judge probabilities."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raymeta.errors import ConfigError
from raymeta.evaluation.labelled import log_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """What a baseline reads of rows to be judged, each `[N, ...]`.

    Attributes:
        labels: `[N, targets]`.
        counts: what rates are made of.
        numbers: numbers.
        codes: categories as integers, as trees read them.
        one_hot: the same as a linear model reads them.
    """

    labels: Floats
    counts: Floats
    numbers: Floats
    codes: NDArray[np.int64]
    one_hot: sparse.csr_array


Fitted = Callable[[Columns], Floats]
"""Columns -> probabilities `[N, targets]`."""


def tune(
    fits: Mapping[str, Callable[[float], Fitted]],
    grids: Mapping[str, Sequence[float]],
    validation: Columns,
    *,
    note: Callable[[str], None],
) -> tuple[dict[str, Fitted], dict[str, Any]]:
    """Each baseline at the setting of its grid with the least log loss on validation users, the
    targets added; and how that was found. One without a grid is fitted at 0."""
    methods: dict[str, Fitted] = {}
    facts: dict[str, Any] = {}
    for name, fit in fits.items():
        note(f"Tuning {name}")
        best: tuple[float, float, Fitted] | None = None
        grid = grids.get(name, (0.0,))
        for setting in grid:
            fitted = fit(setting)
            loss = float(log_losses(validation.labels, fitted(validation)).sum(1).mean())
            if best is None or loss < best[0]:
                best = loss, setting, fitted
        assert best is not None
        loss, setting, methods[name] = best
        facts[name] = {
            "setting": setting,
            "validation_log_loss": loss,
            "num_configurations": len(grid),
        }
    return methods, facts


def fit_model(name: str, setting: float, train: Columns) -> Fitted:
    """`logistic_regression` or `boosting`, one model a target.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            f"The baseline {name} is scikit-learn's, which is not installed.",
            remedy="pip install 'raymeta[ads]', or name others with --baselines.",
        )
    fit = _fit_logistic if name == "logistic_regression" else _fit_boosting
    models = [fit(setting, train, label) for label in train.labels.T]
    return lambda rows: np.stack([model(rows) for model in models], 1)


def one_hot(code: NDArray[np.int64], width: int) -> sparse.csr_array:
    """`[N, width]`, a one in each row."""
    rows = np.arange(len(code))
    return sparse.csr_array((np.ones(len(code)), (rows, code)), shape=(len(code), width))


def stacked(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts end to end."""

    def joined(values: Sequence[Any]) -> Any:
        is_sparse = sparse.issparse(values[0])
        return sparse.vstack(values).tocsr() if is_sparse else np.concatenate(values)

    return Columns(*(joined([getattr(p, name) for p in parts]) for name in vars(parts[0])))


def _fit_logistic(setting: float, train: Columns, label: Floats) -> Callable[[Columns], Floats]:
    from sklearn.linear_model import LogisticRegression

    mean, std = train.numbers.mean(0), train.numbers.std(0) + 1e-9

    def inputs(rows: Columns) -> sparse.csr_array:
        return sparse.hstack([(rows.numbers - mean) / std, rows.one_hot]).tocsr()

    model = LogisticRegression(C=setting, max_iter=300, tol=1e-3).fit(inputs(train), label)
    return lambda rows: np.asarray(model.predict_proba(inputs(rows))[:, 1])


def _fit_boosting(setting: float, train: Columns, label: Floats) -> Callable[[Columns], Floats]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def inputs(rows: Columns) -> Floats:
        return np.column_stack([rows.numbers, rows.codes])

    model = HistGradientBoostingClassifier(
        max_leaf_nodes=int(setting),
        learning_rate=0.06,
        max_iter=150,
        min_samples_leaf=100,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    ).fit(inputs(train), label)
    return lambda rows: np.asarray(model.predict_proba(inputs(rows))[:, 1])
