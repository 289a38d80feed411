"""parallel-metalearn 0.5.6: its `MAML` with all users in one `vmap`.

Its step also runs the outer optimiser; one with a rate of zero keeps the parameters where they are.
"""

from collections.abc import Callable

import networks
import torch
from metalearn.algorithms import MAML
from metalearn.inner_optimizers import InnerSGD
from metalearn.loss import BaseLoss
from metalearn.model_wrappers import MAML_Model
from torch import Tensor, nn
from works import Arrays, Work


class Model(MAML_Model):
    """Its wrapper of a backbone and a head, around a network that has its own division."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(nn.Identity())
        self.net = net

    def forward(self, x: Tensor, **_options: object) -> dict[str, Tensor]:
        return {"logits": self.net(x), "buffers": {}}

    def get_fast_weights(self, **_options: object) -> dict[str, Tensor]:
        return {n: p for n, p in self.named_parameters() if n.startswith("net.fast.")}


class Loss(BaseLoss):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def forward(self, out_dict, targets, model_states=None, **_options):
        value = networks.loss(self.work, out_dict["logits"], targets)
        return value, value.detach()


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    net = networks.network(work, values)
    model = Model(net)
    rows = {name: torch.from_numpy(value) for name, value in batch.items()}
    inner = InnerSGD(model.get_fast_weights(), inner_lr=work.inner_lr, learn_lr=False)
    algorithm = MAML(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        inner_optimizer=inner.to(next(net.parameters()).dtype),
        support_loss_fn=Loss(work),
        inner_steps=work.steps,
        chunk_size=len(rows["support_y"]),
        device=torch.device("cpu"),
    )
    batches = [tuple(rows[n] for n in ("support_x", "support_y", "query_x", "query_y"))]

    def step() -> dict[str, Tensor]:
        algorithm.step(iter(batches))
        return {name: p.grad for name, p in net.named_parameters()}

    return step
