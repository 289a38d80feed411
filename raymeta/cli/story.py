"""The story that `raymeta demo` tells: one new household, visit by visit, against the service.

What is to be found is the same after every visit, so that numbers compare: products that the
household buys after its last visit of the story and had at none before, ranked among all that it
did not have by then.
"""

import json
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymeta.config.serving import DEFAULT
from raymeta.data.episodes import cut
from raymeta.data.events import History
from raymeta.evaluation.fixed_target import FixedTarget
from raymeta.evaluation.metrics import ndcg_of_list

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

STORY_VISITS = (0, 1, 2, 3)
SHOWN = 5
FULL_BASKET = 5
"""New products of the catalogue at a visit that tells something of a household."""


def typical_household(households: FixedTarget, histories: Sequence[History]) -> int:
    """The position of a household that is typical of those whose list becomes better.

    Nearest to their mean nDCG@10 after every number of visits; of those with full baskets, if
    there are any, since their visits tell something.
    """
    ndcg = households.ndcg
    better = ndcg[:, -1] > ndcg[:, 0]
    if not better.any():
        better[:] = True
    distance = np.square(ndcg - ndcg[better].mean(axis=0)).sum(axis=1)
    told = better & np.array([has_full_baskets(histories[row]) for row in households.rows])
    distance[~(told if told.any() else better)] = np.inf
    return int(households.rows[distance.argmin()])


def has_full_baskets(history: History) -> bool:
    """Whether each visit of the story brought `FULL_BASKET` products that were new to the user."""
    seen: set[int] = set()
    for visit in STORY_VISITS[:-1]:
        bought = set(history.item[(history.visit == visit) & (history.item >= 0)].tolist())
        if len(bought - seen) < FULL_BASKET:
            return False
        seen |= bought
    return True


def tell(
    url: str, artifact: "Artifact", history: History, *, positive_types: Sequence[int]
) -> list[dict[str, Any]]:
    """What the service recommends after each visit, and what of it the household bought later."""
    titles = dict(zip(artifact.catalogue.item_ids, _titles(artifact), strict=True))
    user_id = f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    before, later = cut(history, STORY_VISITS[-1], unit="visits", positive_types=positive_types)
    item_ids = artifact.catalogue.item_ids
    had = [item_ids[i] for i in np.unique(before.item[before.item >= 0])]
    wanted = {item_ids[i] for i in later}
    rows = []
    for visits in STORY_VISITS:
        new = history.where((history.visit == visits - 1) & (history.item >= 0))
        answer = _post(
            f"{url}/v1/recommend",
            {
                "user_id": user_id,
                "n": 10,
                "events": _wire(new, artifact),
                "exclude": had,
                "variant": DEFAULT,
            },
        )
        ids = [item["id"] for item in answer["items"]]
        rows.append(
            {
                "visits": visits,
                "n_support": answer["n_support"],
                "took_ms": answer["took_ms"],
                "ndcg_at_10": ndcg_of_list([i in wanted for i in ids], len(wanted)),
                "items": [
                    {"id": i, "title": titles[i], "bought_later": i in wanted} for i in ids[:SHOWN]
                ],
            }
        )
    return rows


def _wire(events: History, artifact: "Artifact") -> list[dict[str, Any]]:
    return [
        {
            "item_id": artifact.catalogue.item_ids[item],
            "event_type": artifact.event_types[kind],
            "timestamp": datetime.fromtimestamp(ms / 1000, UTC).isoformat(),
        }
        for item, kind, ms in zip(
            events.item.tolist(),
            events.event_type.tolist(),
            events.timestamp_ms.tolist(),
            strict=True,
        )
    ]


def _titles(artifact: "Artifact") -> list[str]:
    items = artifact.catalogue.items
    column = "title" if "title" in items.column_names else "item_id"
    return [str(title) for title in items[column].to_pylist()]


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def render_story(summary: dict[str, Any]) -> Group:
    """The story as a table, and two commands to go on with."""
    households = summary["households"]
    table = Table(
        title=f"Household {summary['household']}: what it is recommended after each visit",
        caption=f"Green and marked *: bought after the {STORY_VISITS[-1]} visits, which is what "
        "nDCG@10 counts in every row; what it bought at them is left out of every row. Of the "
        f"{households['count']} households that training never met (last column: their mean), "
        f"{households['better']:.0%} have a better list by the end and {households['worse']:.0%} a "
        "worse one; this household is typical of the better ones.",
        caption_justify="left",
        show_lines=True,
    )
    for name in ("known", "recommended", "nDCG@10", "ms", "mean of all"):
        table.add_column(name, justify="left" if name == "recommended" else "right")
    for row, mean in zip(summary["story"], households["mean_ndcg_at_10"], strict=True):
        lines = Text("\n").join(
            Text(f"{'*' if i['bought_later'] else ' '} {i['title']}", _style(i))
            for i in row["items"]
        )
        table.add_row(
            f"{_count(row['visits'], 'visit')}\n{_count(row['n_support'], 'product')}",
            lines,
            f"{row['ndcg_at_10']:.3f}",
            f"{row['took_ms']:.1f}",
            f"{mean:.3f}",
        )
    item = summary["story"][-1]["items"][0]["id"]
    event = {"user_id": "ann", "events": [{"item_id": item, "event_type": "purchase"}]}
    header = "-H 'Content-Type: application/json'"
    url = summary["url"]
    return Group(
        table,
        Text(f"Report:   {summary['report']}/report.html", no_wrap=True, overflow="ignore"),
        Text(f"Endpoint: {url}. Try, in another terminal:", no_wrap=True, overflow="ignore"),
        Text(
            f"curl -s {url}/v1/events {header} -d '{json.dumps(event)}'",
            no_wrap=True,
            overflow="ignore",
        ),
        Text(
            f"""curl -s {url}/v1/recommend {header} -d '{{"user_id": "ann", "n": 5}}'""",
            no_wrap=True,
            overflow="ignore",
        ),
        Text(f"Again:    raymeta serve {summary['artifact']}", no_wrap=True, overflow="ignore"),
    )


def _style(item: dict[str, Any]) -> str:
    return "green" if item["bought_later"] else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
