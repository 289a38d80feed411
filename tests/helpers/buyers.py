"""A shop with known rates: each user buys in each category on each day with a probability."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymeta.config.algorithms import MetaSgdConfig
from raymeta.config.data import DataConfig, IntentRowsConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import PurchaseIntentConfig
from raymeta.config.scenario import IntentConfig
from tests.helpers.shops import write_tasks

DAY_MS = 86_400_000
FIRST_MS = 1_690_000_000_000
NUM_CATEGORIES, ITEMS_A_CATEGORY, HORIZON_DAYS = 6, 2, 4

BUYERS = ExperimentConfig(
    name="buyers",
    scenario=IntentConfig(),
    data=DataConfig(
        intent=IntentRowsConfig(
            category_column="category", num_categories=NUM_CATEGORIES, horizon_days=HORIZON_DAYS
        ),
        min_item_users=1,
        min_units=1,
        support_sizes=(0, 1, 5, 20, 50),
    ),
    model=PurchaseIntentConfig(embedding_dim=4, hidden_dim=8),
    algorithm=MetaSgdConfig(fast="all", inner_lr=0.1, num_inner_steps=2),
    training=TrainingConfig(
        tasks_per_batch=32, max_outer_steps=60, outer_lr=0.02, validate_every=20
    ),
)


def write_buyers(
    folder: Path, *, spread: float, num_users: int = 160, num_days: int = 100, seed: int = 0
) -> np.ndarray:
    """Writes tasks and items; users' log rates differ by `spread`, 0 for a world without users.

    Returns:
        `[num_users, NUM_CATEGORIES]`, by user id and category name, the probability of a purchase
        in any `HORIZON_DAYS` days that start after a moment: 1 - exp(-HORIZON_DAYS rate).
    """
    rng = np.random.default_rng(seed)
    base = np.linspace(0.04, 0.15, NUM_CATEGORIES)
    rate = base * np.exp(spread * rng.standard_normal((num_users, NUM_CATEGORIES)))
    rows = []
    for user in range(num_users):
        bought = rng.uniform(size=(num_days, NUM_CATEGORIES)) < 1.0 - np.exp(-rate[user])
        bought[int(rng.integers(num_days // 2)), 0] = True  # nobody is without a purchase
        day, category = np.nonzero(bought)
        item = category * ITEMS_A_CATEGORY + rng.integers(ITEMS_A_CATEGORY, size=len(day))
        visit = np.unique(day, return_inverse=True)[1]
        rows.append(
            {
                "user_id": f"u{user:04d}",
                "num_visits": int(visit.max()) + 1,
                "item": item.tolist(),
                "event_type": [0] * len(item),
                "timestamp_ms": (FIRST_MS + day * DAY_MS).tolist(),
                "value": [1.0] * len(item),
                "visit": visit.tolist(),
            }
        )
    ids = [f"i{index:03d}" for index in range(NUM_CATEGORIES * ITEMS_A_CATEGORY)]
    write_tasks(folder, rows, ids, name=f"buyers-{spread}-{num_users}-{num_days}-{seed}")
    categories = [f"c{index // ITEMS_A_CATEGORY}" for index in range(len(ids))]
    pq.write_table(pa.table({"item_id": ids, "category": categories}), folder / "items.parquet")
    (folder / "schema.yaml").write_text("items: {category: categorical}\nusers: {}\n")
    return 1.0 - np.exp(-HORIZON_DAYS * rate)
