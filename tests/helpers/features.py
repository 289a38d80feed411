"""Item and user features for the grouped shop: a wing tells the group, a shade tells nothing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.shops import write_grouped_shop

GROUPS, PER_GROUP = 4, 10
SCHEMA = """\
items: {wing: categorical, shades: multi_categorical, price: numeric}
users: {town: categorical}
"""


def item_features(number: int, group: int) -> dict[str, object]:
    return {"wing": f"w{group}", "shades": [f"s{number % 3}", "any"], "price": float(number % 5)}


def write_shop_with_features(folder: Path, *, num_users: int = 120) -> Path:
    """The grouped shop: each item in its group's wing, two of three users in their group's town."""
    write_grouped_shop(folder, num_users=num_users, num_groups=GROUPS, items_per_group=PER_GROUP)
    items = [
        {"item_id": f"i{n:03d}", **item_features(n, n // PER_GROUP)}
        for n in range(GROUPS * PER_GROUP)
    ]
    users = [{"user_id": f"u{n:04d}", "town": f"t{n % GROUPS}"} for n in range(num_users) if n % 3]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    pq.write_table(pa.Table.from_pylist(users), folder / "users.parquet")
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    return folder
