"""The model of purchases by category from a config: from data, or from an artifact's tables."""

import torch

from raymeta.config.models import PurchaseIntentConfig
from raymeta.data.moments import category_rates, intent_rows
from raymeta.data.task_split import TaskSplit
from raymeta.models.purchase_intent import CategoryCounts, PurchaseIntent
from raymeta.types import Params


def build_purchase_intent(config: PurchaseIntentConfig, split: TaskSplit) -> PurchaseIntent:
    """The model with its rates counted on the training users."""
    rows = intent_rows(split.view)
    found = category_rates(split.train, split.view)
    share, rate, arrival_rate = (torch.from_numpy(values).float() for values in found)
    of_item = torch.from_numpy(rows.category_of_item)
    horizon_days = torch.tensor(rows.horizon_days)
    return _of(config, CategoryCounts(of_item, share, rate, arrival_rate, horizon_days))


def restore_purchase_intent(config: PurchaseIntentConfig, tables: Params) -> PurchaseIntent:
    """The model of an artifact."""
    counts = CategoryCounts(
        tables["category_of_item"],
        tables["category_share"],
        tables["category_rate"],
        tables["arrival_rate"],
        tables["horizon_days"],
    )
    return _of(config, counts)


def _of(config: PurchaseIntentConfig, counts: CategoryCounts) -> PurchaseIntent:
    return PurchaseIntent(counts, embedding_dim=config.embedding_dim, hidden_dim=config.hidden_dim)
