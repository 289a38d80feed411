"""The demo's experiment: households that training never met shop at two variants of the service.

Each is dealt to a variant by its id, is shown ten products before each visit, and then buys what it
did buy; the service counts what was on its list. The log is of a shop that showed other lists, so
that what is found is how often a list held what a household was about to buy anyway, and not what
a list would have made it buy.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from raymeta.client import Client, Event
from raymeta.serve.schemas.recommend import RecommendResponse

if TYPE_CHECKING:
    from raymeta.artifact import Artifact
    from raymeta.data.events import History
    from raymeta.data.task_dataset import UserTasks
    from raymeta.data.task_split import TaskSplit

ADAPTED, UNADAPTED = "default", "unadapted"
MAX_HOUSEHOLDS = 200
MAX_VISITS = 5
FIRST_DAY_AGO, DAYS = 8, 20
"""On which days households made their last visit: not within the seven days in which more may
follow from a list."""

_DAY_MS = 86_400_000


def save_unadapted(artifact: "Artifact", split: "TaskSplit", path: Path) -> Path:
    """The same model, told of no event: what it gives anybody, it gives everybody."""
    from raymeta.artifact import save_artifact

    return save_artifact(
        path,
        experiment=artifact.experiment,
        split=replace(split, view=replace(split.view, event_types=())),
        algorithm=artifact.algorithm,
        meta_params=artifact.meta_params,
        metrics={},
    )


def shop(url: str, artifact: "Artifact", households: "UserTasks", *, run: str) -> dict[str, Any]:
    """Has households shop; gives what the service counted, by variant.

    Args:
        url: of the service.
        artifact: whose catalogue and event types the histories are in.
        households: with visits; the first `MAX_HOUSEHOLDS`.
        run: begins the households' ids, so that each run has users of its own.
    """
    count = min(MAX_HOUSEHOLDS, len(households))
    now_ms = time.time_ns() // 1_000_000
    with Client(url) as client:
        for row in range(count):
            events: list[Event] = []
            user_id = f"{run}-{row}"
            ended_ms = now_ms - (FIRST_DAY_AGO + row % DAYS) * _DAY_MS
            for at_ms, bought in _visits(households[row], artifact, ended_ms=ended_ms):
                listed = client.recommend(user_id, n=10, events=events)
                events = [*_impressions(listed, at_ms - 60_000), *bought]
            if events:
                client.events(user_id, events)
        found = client.online_metrics(click_hours=24.0, conversion_hours=24.0 * 7)
    return {
        name: variant.model_dump(include={"users", "impressions", "conversions", "users_converted"})
        for name, variant in found.variants.items()
    }


def _impressions(listed: RecommendResponse, at_ms: int) -> list[Event]:
    return [
        Event(
            item_id=item.id,
            event_type="impression",
            timestamp=at_ms,
            ranking_id=listed.recommendation_id,
            position=position,
        )
        for position, item in enumerate(listed.items)
    ]


def _visits(
    history: "History", artifact: "Artifact", *, ended_ms: int
) -> list[tuple[int, list[Event]]]:
    """The first visits, the last of them at `ended_ms`: when each began, and what it brought."""
    known = history.where((history.item >= 0) & (history.visit < MAX_VISITS))
    if not len(known.item):
        return []
    shift_ms = ended_ms - int(known.timestamp_ms.max())
    visits = []
    for visit in np.unique(known.visit):
        of_visit = known.where(known.visit == visit)
        bought = [
            Event(
                item_id=artifact.catalogue.item_ids[item],
                event_type=artifact.event_types[kind],
                timestamp=at_ms + shift_ms,
                place=None if place < 0 else artifact.view.places[place],
            )
            for item, kind, at_ms, place in zip(
                of_visit.item.tolist(),
                of_visit.event_type.tolist(),
                of_visit.timestamp_ms.tolist(),
                of_visit.place.tolist(),
                strict=True,
            )
        ]
        visits.append((int(of_visit.timestamp_ms.min()) + shift_ms, bought))
    return visits


def render_shoppers(found: Mapping[str, Any]) -> Table:
    """What the households of each variant found on their lists."""
    table = Table(
        title="An experiment: households are dealt to two variants",
        caption="Of the products that a household was shown before its visits, those that it then "
        "bought, and the households that found any (95% interval). It would have bought them "
        "without a list; and where the intervals overlap, so few households do not tell.",
        caption_justify="left",
    )
    for name in ("variant", "households", "shown", "bought", "households that found any"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for name, facts in found.items():
        rate = facts["users_converted"]
        table.add_row(
            "adapted" if name == ADAPTED else name,
            f"{facts['users']}",
            f"{facts['impressions']}",
            f"{facts['conversions']} ({facts['conversions'] / max(1, facts['impressions']):.1%})",
            f"{rate['value'] or 0.0:.0%} ({rate['low']:.0%} to {rate['high']:.0%})",
        )
    return table
