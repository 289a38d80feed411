"""The loss of a batch of pretraining: of the whole catalogue's list, or of a sample of it.

Shapes: T users, Q later items, I items, K sampled items, E width of an item vector.
"""

import torch
from torch import Tensor

from raymeta.config.pretraining import PretrainingConfig
from raymeta.models.next_items import NextItems
from raymeta.models.ranking_losses import indicator, sampled_softmax_loss, soft_ndcg_loss
from raymeta.train.pretraining_tasks import PretrainingBatch
from raymeta.types import Examples


def pretraining_loss(
    network: NextItems, batch: PretrainingBatch, prior: Tensor, config: PretrainingConfig
) -> Tensor:
    """Mean over the users of a batch, a scalar.

    Draws from torch's own generator, as dropout does: the sampled items.

    Args:
        prior: log of each item's share of what was bought, `[I]`.
    """
    summary = network(batch.support)
    if config.num_sampled:
        return _sampled(network, summary, batch, prior, config.num_sampled)
    rest = prior.expand(len(summary), -1) if batch.base is None else batch.base
    scores = rest * network.log_scale.exp() + (summary @ network.item_vectors().T).float()

    def one(scores: Tensor, support: Examples, query: Examples) -> Tensor:
        hidden = indicator(support["item"], support["mask"], scores)
        relevant = indicator(query["item"], query["mask"], scores)
        if config.loss == "ndcg":
            return soft_ndcg_loss(scores, relevant, hidden)
        log_probability = (scores - 1e4 * hidden).log_softmax(0)
        return -(log_probability * relevant).sum() / relevant.sum().clamp(min=1.0)

    losses: Tensor = torch.func.vmap(one)(scores, batch.support, batch.query)
    return losses.mean()


def _sampled(
    network: NextItems, summary: Tensor, batch: PretrainingBatch, prior: Tensor, num_sampled: int
) -> Tensor:
    """Softmax over items drawn by popularity, the same for all users of the batch."""
    scale = network.log_scale.exp()
    drawn = torch.multinomial(prior.softmax(0), num_sampled, replacement=True)
    log_q = prior.log_softmax(0) + torch.log(prior.new_tensor(float(num_sampled)))
    vectors = network.item_vectors(drawn)

    def one(summary: Tensor, right_vectors: Tensor, support: Examples, query: Examples) -> Tensor:
        met = indicator(support["item"], support["mask"], prior)
        met = met + indicator(query["item"], query["mask"], prior)
        items = query["item"]
        return sampled_softmax_loss(
            scale * prior[items] + right_vectors @ summary,
            log_q[items],
            query["mask"],
            scale * prior[drawn] + vectors @ summary,
            log_q[drawn],
            met[drawn] > 0,
        )

    right = network.item_vectors(batch.query["item"])
    losses: Tensor = torch.func.vmap(one)(summary, right, batch.support, batch.query)
    return losses.mean()
