"""learn2learn 0.2.0: `MAML.clone` and `adapt` for each user, as in its examples."""

from collections.abc import Callable

import networks
import torch
from learn2learn.algorithms.maml import MAML
from works import Arrays, Work


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    net = networks.network(work, values)
    bound = networks.Bound(net)
    maml = MAML(bound, lr=work.inner_lr, first_order=False)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    users = len(rows["support_y"])

    def step() -> dict[str, torch.Tensor]:
        net.zero_grad()
        for user in range(users):
            task = {name: value[user] for name, value in rows.items()}
            learner = maml.clone()
            support, query = bound.features(task["support_x"]), bound.features(task["query_x"])
            for _ in range(work.steps):
                learner.adapt(networks.loss(work, learner(support), task["support_y"]))
            (networks.loss(work, learner(query), task["query_y"]) / users).backward()
        return {name: p.grad for name, p in net.named_parameters()}

    return step
