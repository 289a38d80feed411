"""Meta-gradients on touched rows alone equal the learner's own; an outer step moves those only."""

import pytest
import torch
from torch import Tensor, nn

from raymeta.algorithms.presets import anil, maml, reptile
from raymeta.algorithms.rows import TouchedRows
from raymeta.errors import ConfigError
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel
from raymeta.types import Examples, TaskBatch

ROWS = 30


class Shop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, 4)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(x).flatten(-2)))


def batch() -> TaskBatch:
    generator = torch.Generator().manual_seed(1)

    def part() -> Examples:
        return {
            "x": torch.randint(3, 9, (4, 5, 2), generator=generator) * 2,
            "y": torch.randn(4, 5, 1, generator=generator, dtype=torch.float64),
            "mask": torch.rand(4, 5, generator=generator) < 0.8,
        }

    return TaskBatch(part(), part())


def learners(preset):
    torch.manual_seed(2)
    plain = preset(ModuleModel(Shop().double(), squared_error), inner_lr=0.2, num_inner_steps=2)
    return plain, TouchedRows(plain, {"table.weight": ["x"]})


@pytest.mark.parametrize("preset", [maml, anil, reptile])
def test_gradients_are_those_of_all_rows(preset) -> None:
    """Also where the table is fast (maml), and where gradients are differences (reptile)."""
    plain, touched = learners(preset)
    params = plain.init(torch.Generator())
    expected = plain.meta_gradient(params, batch())
    found = touched.meta_gradient(params, batch())
    assert float(found.loss_sum) == pytest.approx(float(expected.loss_sum), rel=1e-12)
    sparse = found.gradients["table.weight"]
    assert set(sparse.indices()[0].tolist()) <= set(range(6, 18, 2))
    for name, value in expected.gradients.items():
        dense = found.gradients[name].to_dense()
        torch.testing.assert_close(dense, value, rtol=1e-10, atol=1e-12)


def test_an_outer_step_moves_touched_rows_and_no_others() -> None:
    plain, touched = learners(maml)
    params = plain.init(torch.Generator())
    before = params["table.weight"].clone()
    optimizer = torch.optim.SparseAdam([params["table.weight"]], lr=0.1)
    params["table.weight"].grad = touched.meta_gradient(params, batch()).gradients["table.weight"]
    optimizer.step()
    moved = (params["table.weight"] != before).any(1).nonzero()[:, 0].tolist()
    assert moved == params["table.weight"].grad.coalesce().indices()[0].tolist()


def test_what_cannot_be_sparse_is_refused() -> None:
    plain, touched = learners(maml)
    with pytest.raises(ConfigError, match="not given per task"):
        touched.meta_gradient(plain.init(torch.Generator()), batch(), per_task=True)
    with pytest.raises(ConfigError, match="one field for two tables"):
        TouchedRows(plain, {"table.weight": ["x"], "other.weight": ["x"]})
