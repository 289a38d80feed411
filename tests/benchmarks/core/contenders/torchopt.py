"""TorchOpt 0.7.3: `MetaSGD` on the module, its state extracted and recovered for each user."""

from collections.abc import Callable

import networks
import torch
import torchopt
from works import Arrays, Work


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    net = networks.network(work, values)
    bound = networks.Bound(net)
    optimizer = torchopt.MetaSGD(bound, lr=work.inner_lr)
    parameters = dict(net.named_parameters())
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    users = len(rows["support_y"])
    start = torchopt.extract_state_dict(bound, by="reference")
    start_optimizer = torchopt.extract_state_dict(optimizer, by="reference")

    def step() -> dict[str, torch.Tensor]:
        for parameter in parameters.values():
            parameter.grad = None
        for user in range(users):
            task = {name: value[user] for name, value in rows.items()}
            support, query = bound.features(task["support_x"]), bound.features(task["query_x"])
            for _ in range(work.steps):
                optimizer.step(networks.loss(work, bound(support), task["support_y"]))
            (networks.loss(work, bound(query), task["query_y"]) / users).backward()
            torchopt.recover_state_dict(bound, start)
            torchopt.recover_state_dict(optimizer, start_optimizer)
        return {name: p.grad for name, p in parameters.items()}

    return step
