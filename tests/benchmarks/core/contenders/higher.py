"""higher 0.2.1: `innerloop_ctx` with a differentiable SGD for each user, as its MAML example."""

from collections.abc import Callable

import higher
import networks
import torch
from works import Arrays, Work


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    net = networks.network(work, values)
    bound = networks.Bound(net)
    optimizer = torch.optim.SGD(bound.parameters(), lr=work.inner_lr)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    users = len(rows["support_y"])

    def step() -> dict[str, torch.Tensor]:
        net.zero_grad()
        for user in range(users):
            task = {name: value[user] for name, value in rows.items()}
            support, query = bound.features(task["support_x"]), bound.features(task["query_x"])
            with higher.innerloop_ctx(bound, optimizer, copy_initial_weights=False) as inner:
                functional, differentiable = inner
                for _ in range(work.steps):
                    out = functional(support)
                    differentiable.step(networks.loss(work, out, task["support_y"]))
                out = functional(query)
                (networks.loss(work, out, task["query_y"]) / users).backward()
        return {name: p.grad for name, p in net.named_parameters()}

    return step
