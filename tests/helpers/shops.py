"""A small shop with a known answer, as a task folder: each user buys within one group of items."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymeta.config.data import DataConfig

SHOP = DataConfig(min_item_users=1, min_units=4, support_sizes=(0, 1, 2))


def write_grouped_shop(
    folder: Path,
    *,
    num_users: int = 120,
    num_groups: int = 4,
    items_per_group: int = 10,
    visits: int = 6,
    seed: int = 0,
) -> Path:
    """Writes `folder/tasks`; a visit is two items of the user's group, bought at one time.

    Popularity knows nothing of groups, so whoever looks at the support ranks better.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        start = (user % num_groups) * items_per_group
        bought = np.array(
            [rng.choice(items_per_group, 2, replace=False) for _ in range(visits)], np.int32
        )
        item = np.sort(bought + start, axis=1).ravel()
        visit = np.repeat(np.arange(visits), 2)
        rows.append(
            {
                "user_id": f"u{user:04d}",
                "num_visits": visits,
                "item": item.tolist(),
                "event_type": [0] * len(item),
                "timestamp_ms": (visit * 86_400_000).tolist(),
                "value": [1.0] * len(item),
                "visit": visit.tolist(),
            }
        )
    ids = [f"i{index:03d}" for index in range(num_groups * items_per_group)]
    return write_tasks(folder, rows, ids, name=f"grouped-{num_users}-{seed}")


def write_tasks(
    folder: Path, rows: list[dict[str, Any]], item_ids: Sequence[str], *, name: str
) -> Path:
    """Writes `folder/tasks` of users who have purchases alone; `name` stands for the data."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("num_visits", pa.int32()),
            ("item", pa.list_(pa.int32())),
            ("event_type", pa.list_(pa.int8())),
            ("timestamp_ms", pa.list_(pa.int64())),
            ("value", pa.list_(pa.float32())),
            ("visit", pa.list_(pa.int32())),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tasks / "bucket-00000.parquet")
    pq.write_table(pa.table({"item_id": item_ids}), tasks / "items.parquet")
    manifest = {
        "format_version": 1,
        "event_types": ["purchase"],
        "buckets": [{"file": "bucket-00000.parquet"}],
        "dataset_sha256": name,
    }
    (tasks / "manifest.json").write_text(json.dumps(manifest))
    return folder


def describe_items(folder: Path, categories: Sequence[str], *, items_per_group: int = 10) -> None:
    """Gives the items of a grouped shop names, a category a group, and prices."""
    rows = [
        {
            "item_id": f"i{group * items_per_group + item:03d}",
            "title": f"{category} number {item}, of group {group}",
            "category": category,
            "price": 1.5 + item,
        }
        for group, category in enumerate(categories)
        for item in range(items_per_group)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    (folder / "schema.yaml").write_text(
        "items: {title: ignore, category: categorical, price: numeric}\nusers: {}\n"
    )
