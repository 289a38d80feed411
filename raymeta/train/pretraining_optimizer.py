"""The update of pretraining: Adam on dense parameters, and on the rows that a step read of tables.

Gradients are summed over workers first, dense ones in one flat buffer. Of a table whose gradients
are sparse only the rows that some worker read travel, after a mask of them.
"""

import torch
from torch import Tensor, nn

from raymeta.config.pretraining import PretrainingConfig
from raymeta.train.outer import AllReduce
from raymeta.types import Params

MAX_GRADIENT_NORM = 1.0
"""The mean gradient of the dense parameters is scaled down to this norm."""


class PretrainingOptimizer:
    """Adam over the parameters of a network, in place.

    Args:
        network: tables are its `nn.Embedding`s with sparse gradients.
        config: rate and decay.
        all_reduce: sums a tensor over workers.
    """

    def __init__(
        self, network: nn.Module, config: PretrainingConfig, *, all_reduce: AllReduce
    ) -> None:
        sparse = {
            f"{name}.weight"
            for name, module in network.named_modules()
            if isinstance(module, nn.Embedding) and module.sparse and module.weight.numel()
        }
        named = {n: p for n, p in network.named_parameters() if p.numel()}
        self._dense = {n: p for n, p in named.items() if n not in sparse}
        self._tables = {n: p for n, p in named.items() if n in sparse}
        self._all_reduce = all_reduce
        rate = config.learning_rate
        self._adam = torch.optim.AdamW(
            list(self._dense.values()), lr=rate, weight_decay=config.weight_decay
        )
        self._by_row = None
        if self._tables:
            self._by_row = torch.optim.SparseAdam(list(self._tables.values()), lr=rate)
        self.touched = {n: torch.zeros(len(p), dtype=torch.bool) for n, p in self._tables.items()}
        """Which rows of the tables any step has moved, by name."""

    def step(self, loss: float) -> float:
        """One update along the mean of the workers' gradients, which `backward` left.

        Returns:
            The mean of the workers' losses.
        """
        like = next(iter(self._dense.values()))
        parts = [_gradient(p).reshape(-1) for p in self._dense.values()]
        flat = torch.cat([*parts, like.new_tensor([loss, 1.0])])
        self._all_reduce(flat)
        num_workers = float(flat[-1])
        sizes = [p.numel() for p in self._dense.values()]
        means = torch.split(flat[:-2] / num_workers, sizes)
        for parameter, mean in zip(self._dense.values(), means, strict=True):
            parameter.grad = mean.view_as(parameter)
        nn.utils.clip_grad_norm_(self._dense.values(), MAX_GRADIENT_NORM)
        self._adam.step()
        if self._by_row is not None:
            for name, table in self._tables.items():
                table.grad = self._summed_rows(name, table) / num_workers
            self._by_row.step()  # type: ignore[no-untyped-call]
        for parameter in (*self._dense.values(), *self._tables.values()):
            parameter.grad = None
        return float(flat[-2]) / num_workers

    def state(self) -> Params:
        """By flat name, for a checkpoint."""
        found: Params = {}
        for adam, parameters in self._groups():
            for name, parameter in parameters.items():
                for key, value in adam.state[parameter].items():
                    found[f"{name}/{key}"] = torch.as_tensor(value)
        return {**found, **{f"touched/{n}": rows for n, rows in self.touched.items()}}

    def load(self, state: Params) -> None:
        """What `state` gave."""
        for adam, parameters in self._groups():
            for name, parameter in parameters.items():
                mine = {
                    key.rpartition("/")[2]: value
                    for key, value in state.items()
                    if key.rpartition("/")[0] == name
                }
                if "step" in mine and adam is self._by_row:
                    mine["step"] = int(mine["step"])  # type: ignore[assignment]
                if mine:
                    adam.state[parameter] = mine
        self.touched = {n: state[f"touched/{n}"] for n in self.touched}

    def _groups(self) -> list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]]:
        groups: list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]] = [
            (self._adam, self._dense)
        ]
        if self._by_row is not None:
            groups.append((self._by_row, self._tables))
        return groups

    def _summed_rows(self, name: str, table: Tensor) -> Tensor:
        """The gradient of a table summed over workers, sparse."""
        read = table.new_zeros(len(table))
        mine = None if table.grad is None else table.grad.coalesce()
        if mine is not None:
            read[mine.indices()[0]] = 1.0
        self._all_reduce(read)
        rows = read.nonzero()[:, 0]
        values = table.new_zeros(len(rows), *table.shape[1:])
        if mine is not None:
            values[torch.searchsorted(rows, mine.indices()[0])] = mine.values()
        self._all_reduce(values)
        self.touched[name][rows.cpu()] = True
        return torch.sparse_coo_tensor(
            rows.unsqueeze(0), values, table.shape, is_coalesced=True, check_invariants=False
        )


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
