"""What a record of operations may leave out: what does not depend on its inputs."""

import torch
from torch import Tensor

from raymeta.algorithms.traced import MAX_FOLDED, operations


def targets(record: torch.fx.GraphModule) -> list[str]:
    return [str(n.target) for n in record.graph.nodes if n.op == "call_function"]


def recorded(function, *inputs: Tensor) -> torch.fx.GraphModule:
    return operations(lambda *given: [function(*given)], list(inputs), fast_calls=False)


def test_constants_are_worked_out_once() -> None:
    rate, table = torch.tensor(2.0).double(), torch.arange(3.0).double()
    record = recorded(lambda x: x * (rate.exp() * table).sin(), x := torch.rand(3).double())
    assert targets(record) == ["aten.mul.Tensor"]
    torch.testing.assert_close(record(x)[0], x * (rate.exp() * table).sin())


def test_the_ones_that_a_derivative_begins_with_are_no_operation() -> None:
    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda value: (value.square() * 3.0).sum())(x)

    record = recorded(slope, x := torch.rand(4).double())
    assert not {"aten.ones_like.default", "aten.sum.default"} & set(targets(record))
    torch.testing.assert_close(record(x)[0], 6.0 * x)


def test_a_factor_that_is_not_all_ones_stays() -> None:
    nearly = torch.tensor([1.0, 1.0, 1.0 + 1e-12], dtype=torch.float64)
    record = recorded(lambda x: x * nearly, x := torch.rand(3).double())
    assert targets(record) == ["aten.mul.Tensor"]
    assert record(x)[0].tolist() == (x * nearly).tolist()


def test_ones_of_another_shape_or_type_stay() -> None:
    x, ones = torch.rand(3), torch.ones(2, 3).double()
    record = recorded(lambda value: value * ones, x)
    assert record(x)[0].shape == (2, 3)
    assert record(x)[0].dtype == torch.float64


def test_a_table_is_not_kept_twice() -> None:
    table = torch.rand(MAX_FOLDED + 1)
    record = recorded(lambda x: (table * 2.0)[x], torch.tensor([0, 5]))
    assert "aten.mul.Tensor" in targets(record)
    assert sum(b.numel() for b in record.buffers()) <= MAX_FOLDED + 1


def test_what_is_drawn_is_drawn_each_time() -> None:
    scale = torch.ones(1000)
    record = recorded(lambda x: x + torch.bernoulli(scale * 0.5), x := torch.zeros(1000))
    assert not torch.equal(record(x)[0], record(x)[0])
