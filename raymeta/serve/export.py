"""The event log as lines that `raymeta prepare files` reads: the loop from serving to training.

One JSON object an event, with the columns of an events table. Lists that were drawn by chance
become `impression` events with their propensities, so that what is learned next can be corrected
for what was shown.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from raymeta.data.schema import OPTIONAL_COLUMNS
from raymeta.serve.user_events.base import EventStore, LoggedRanking, StoredEvent

MEDIA_TYPE = "application/x-ndjson"


@dataclass(frozen=True)
class Page:
    """Events of some users, whole users at a time.

    Attributes:
        lines: each ends with a newline.
        next_after: where the next page begins; None where this is the last.
    """

    lines: str
    next_after: str | None


async def export_page(store: EventStore, tenant: str, *, after: str, num_users: int) -> Page:
    """The retained events of at most `num_users` users with ids above `after`, by id."""
    user_ids = await store.user_ids(tenant, after=after, limit=num_users)
    lines = [line async for line in _lines(store, tenant, user_ids)]
    return Page("".join(lines), user_ids[-1] if len(user_ids) == num_users else None)


async def _lines(store: EventStore, tenant: str, user_ids: list[str]) -> AsyncIterator[str]:
    for user_id in user_ids:
        record = await store.read(tenant, user_id)
        for event in record.events:
            yield _line(user_id, _columns(event))
        for ranking in await store.rankings(tenant, user_id):
            for columns in _impressions(ranking):
                yield _line(user_id, columns)


def _columns(event: StoredEvent) -> dict[str, Any]:
    optional = {name: getattr(event, name) for name in OPTIONAL_COLUMNS}
    return {
        "item_id": event.item_id,
        "event_type": event.event_type,
        "timestamp": event.timestamp_ms,
        **optional,
    }


def _impressions(ranking: LoggedRanking) -> Iterator[dict[str, Any]]:
    for position, (item_id, propensity) in enumerate(ranking.slots):
        yield {
            "item_id": item_id,
            "event_type": "impression",
            "timestamp": ranking.timestamp_ms,
            "ranking_id": ranking.ranking_id,
            "position": position,
            "propensity": propensity,
        }


def _line(user_id: str, columns: dict[str, Any]) -> str:
    present = {name: value for name, value in columns.items() if value is not None}
    return json.dumps({"user_id": user_id, **present}, ensure_ascii=False) + "\n"
