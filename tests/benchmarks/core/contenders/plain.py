"""No library: a loop over users with `torch.autograd.grad(create_graph=True)`; the reference."""

from collections.abc import Callable

import networks
import torch
from works import Arrays, Work


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    net = networks.network(work, values)
    bound = networks.Bound(net)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    users = len(rows["support_y"])

    def step() -> dict[str, torch.Tensor]:
        net.zero_grad()
        for user in range(users):
            task = {name: value[user] for name, value in rows.items()}
            support, query = bound.features(task["support_x"]), bound.features(task["query_x"])
            fast = dict(bound.named_parameters())
            for _ in range(work.steps):
                out = torch.func.functional_call(bound, fast, support)
                inner = networks.loss(work, out, task["support_y"])
                found = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
                fast = {
                    name: torch.sub(value, gradient, alpha=work.inner_lr)
                    for (name, value), gradient in zip(fast.items(), found, strict=True)
                }
            out = torch.func.functional_call(bound, fast, query)
            (networks.loss(work, out, task["query_y"]) / users).backward()
        return {name: p.grad for name, p in net.named_parameters()}

    return step
