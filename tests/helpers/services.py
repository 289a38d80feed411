"""Services of two replicas, and shoppers who go through a fault of theirs."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.config.serving import ServingConfig
from raymeta.serve import local
from tests.helpers.shoppers import Shopper, num_acknowledged, shop_through, told

NUM_SHOPPERS = 6
LOAD_S = 12.0
FAULT_AT_S = 3.0


@contextlib.contextmanager
def served(artifact: Path, store: dict[str, Any]) -> Iterator[str]:
    config = ServingConfig.parse(
        {
            "tenants": {"default": {"variants": {"default": str(artifact)}}},
            "store": store,
            "replicas": {"num_replicas": 2, "num_cpus": 0.25},
        },
        source="test",
    )
    with local.serving(config, host="127.0.0.1", port=runtime.free_port()) as url:
        yield url


def through(url: str, artifact: Path, name: str, fault: Callable[[], None]) -> list[Shopper]:
    """Shoppers through a fault; fails unless all that they were told holds."""
    items = load_artifact(artifact).catalogue.item_ids
    shoppers = [Shopper(f"{name}{number}".replace(" ", "-")) for number in range(NUM_SHOPPERS)]
    asyncio.run(shop_through(url, shoppers, items, fault, load_s=LOAD_S, fault_at_s=FAULT_AT_S))
    print("\n" + told(name, shoppers))
    assert sum(shopper.stale for shopper in shoppers) == 0
    assert num_acknowledged(shoppers) > 2 * NUM_SHOPPERS
    return shoppers
