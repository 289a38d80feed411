"""The item encoder against the weighted normal equations, and its choice of penalty."""

import numpy as np
import pytest
import torch
from scipy import sparse

from raymeta.errors import DataError
from raymeta.models import item_encoder
from raymeta.models.item_encoder import ItemEncoder


def world(
    *, noise: float, num_items: int = 300
) -> tuple[sparse.csr_array, torch.Tensor, np.ndarray]:
    """Features of which the first ten decide a table of three columns, its rows, weights."""
    rng = np.random.default_rng(0)
    features = (rng.random((num_items, 20)) < 0.3).astype(np.float32)
    effect = np.zeros((20, 3))
    effect[:10] = rng.normal(size=(10, 3))
    table = 1.0 + features @ effect + noise * rng.normal(size=(num_items, 3))
    return sparse.csr_array(features), torch.from_numpy(table), rng.random(num_items) + 0.1


def test_the_map_solves_the_weighted_ridge_regression(monkeypatch) -> None:
    monkeypatch.setattr(item_encoder, "PENALTIES", (5.0,))
    features, table, weights = world(noise=0.5)
    encoder = ItemEncoder.fit(features, {"a": table}, weights=torch.from_numpy(weights))
    # the same as one least-squares problem: rows times sqrt(w), a free column of ones, and a row
    # sqrt(penalty) for each feature
    root = np.sqrt(weights / weights.mean())[:, None]
    x = np.vstack(
        [
            root * np.hstack([features.toarray(), np.ones((300, 1))]),
            np.hstack([np.sqrt(5.0) * np.eye(20), np.zeros((20, 1))]),
        ]
    )
    y = np.vstack([root * table.numpy(), np.zeros((20, 3))])
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    assert encoder.weights["a"].numpy() == pytest.approx(expected[:-1], abs=1e-5)
    assert encoder.intercepts["a"].numpy() == pytest.approx(expected[-1], abs=1e-5)


def test_what_features_decide_is_found_and_what_they_do_not_is_left_to_the_mean() -> None:
    features, table, weights = world(noise=0.05)
    rng = np.random.default_rng(1)
    nothing = torch.from_numpy(rng.normal(2.0, 1.0, 300))
    tables = {"known": table, "nothing": nothing}
    encoder = ItemEncoder.fit(features, tables, weights=torch.from_numpy(weights))
    assert encoder.explained["known"] > 0.98
    assert encoder.explained["nothing"] < 0.1
    assert encoder.penalties["nothing"] > encoder.penalties["known"]
    rows = encoder.encode(features)
    assert rows["known"].shape == table.shape
    assert rows["nothing"].shape == nothing.shape
    assert float(rows["nothing"].std()) < 0.5
    assert (rows["known"] - table).abs().mean() < 0.2


def test_the_map_survives_a_file() -> None:
    features, table, weights = world(noise=0.5)
    tables = {"vectors": table, "prior": table[:, 0]}
    encoder = ItemEncoder.fit(features, tables, weights=torch.from_numpy(weights))
    again = ItemEncoder.restore(encoder.tensors(), encoder.facts())
    for name, value in encoder.encode(features).items():
        assert torch.equal(again.encode(features)[name], value)
    assert again.penalties == encoder.penalties


def test_rare_columns_are_left_out_where_there_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr(item_encoder, "MAX_COLUMNS", 12)
    features, table, weights = world(noise=0.05)
    encoder = ItemEncoder.fit(features, {"a": table}, weights=torch.from_numpy(weights))
    fitted = encoder.weights["a"].abs().sum(1) > 0
    counts = np.asarray(features.sum(axis=0)).ravel()
    assert int(fitted.sum()) == 12
    assert counts[fitted.numpy()].min() >= counts[~fitted.numpy()].max()


def test_too_few_items_are_refused() -> None:
    features, table, weights = world(noise=0.5, num_items=10)
    with pytest.raises(DataError, match="10 items are too few"):
        ItemEncoder.fit(features, {"a": table}, weights=torch.from_numpy(weights))
