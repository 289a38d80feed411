"""The story that `raymeta demo` tells: one new household, visit by visit, against the service."""

import json
import urllib.request
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymeta.data.episodes import cut
from raymeta.data.events import History
from raymeta.evaluation.fold import OURS, UNADAPTED
from raymeta.evaluation.metrics import ndcg_of_list

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

STORY_VISITS = (0, 1, 2, 3)
SHOWN = 5
FULL_BASKET = 5
"""New products of the catalogue at a visit that tells something of a household."""


def typical_household(
    per_user: pd.DataFrame, full_baskets: Collection[str]
) -> tuple[str, dict[int, float]]:
    """The test household that adapting helps about as much as it helps on average.

    Nearest, over the visits of the story, to the mean gain in nDCG@10 over the unadapted model.

    Args:
        per_user: a row a (method, size, user) with `ndcg_at_10`, as a report keeps them.
        full_baskets: users to choose from, if any has something left to find after each visit:
            those of whom each visit tells something new.

    Returns:
        Its user id, and the unadapted model's nDCG@10 for it by number of visits.
    """

    def by_size(method: str) -> pd.DataFrame:
        rows = per_user[(per_user["method"] == method) & per_user["size"].isin(STORY_VISITS)]
        return rows.pivot(index="user_id", columns="size", values="ndcg_at_10").dropna()

    unadapted = by_size(UNADAPTED)
    gain = by_size(OURS) - unadapted
    distance = np.square(gain - gain.mean()).sum(axis=1)
    told = distance[distance.index.isin(list(full_baskets))]
    user_id = str((told if len(told) else distance).idxmin())
    of_user = unadapted.loc[user_id].to_numpy()
    sizes = map(int, unadapted.columns.tolist())
    return user_id, dict(zip(sizes, of_user.tolist(), strict=True))


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
    url: str,
    artifact: "Artifact",
    history: History,
    unadapted: dict[int, float],
    *,
    positive_types: Sequence[int],
) -> list[dict[str, Any]]:
    """What the service recommends after each visit, and what of it the household bought later."""
    titles = dict(zip(artifact.catalogue.item_ids, _titles(artifact), strict=True))
    user_id = f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    rows = []
    for visits in STORY_VISITS:
        new = history.where((history.visit == visits - 1) & (history.item >= 0))
        answer = _post(
            f"{url}/v1/recommend",
            {"user_id": user_id, "n": 10, "events": _wire(new, artifact)},
        )
        _, later = cut(history, visits, unit="visits", positive_types=positive_types)
        wanted = {artifact.catalogue.item_ids[i] for i in later}
        ids = [item["id"] for item in answer["items"]]
        rows.append(
            {
                "visits": visits,
                "n_support": answer["n_support"],
                "took_ms": answer["took_ms"],
                "ndcg_at_10": ndcg_of_list([i in wanted for i in ids], len(wanted)),
                "unadapted_ndcg_at_10": unadapted[visits],
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
    table = Table(
        title=f"Household {summary['household']}: what it is recommended after each visit",
        caption="Green and marked *: bought later. What it has is no longer recommended, and the "
        "rest is harder to find, so that nDCG falls for any method: what counts is the gain over "
        "the same model without adapting. Of the test households with full baskets, this one is "
        "nearest to the average gain.",
        caption_justify="left",
        show_lines=True,
    )
    for name in ("known", "recommended", "nDCG@10", "unadapted", "gain", "ms"):
        table.add_column(name, justify="left" if name == "recommended" else "right")
    for row in summary["story"]:
        lines = Text("\n").join(
            Text(f"{'*' if i['bought_later'] else ' '} {i['title']}", _style(i))
            for i in row["items"]
        )
        gain = row["ndcg_at_10"] - row["unadapted_ndcg_at_10"]
        table.add_row(
            f"{row['visits']} visits\n{row['n_support']} products",
            lines,
            f"{row['ndcg_at_10']:.3f}",
            f"{row['unadapted_ndcg_at_10']:.3f}",
            f"{gain:+.3f}",
            f"{row['took_ms']:.1f}",
        )
    item = summary["story"][-1]["items"][0]["id"]
    event = {"user_id": "ann", "events": [{"item_id": item, "event_type": "purchase"}]}
    header = "-H 'Content-Type: application/json'"
    url = summary["url"]
    return Group(
        table,
        Text(
            f"Report:   {summary['report']}/report.md, curve.png", no_wrap=True, overflow="ignore"
        ),
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
