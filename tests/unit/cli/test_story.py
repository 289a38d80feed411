"""The household of the demo's story is one that adapting helps as much as it helps on average."""

import pandas as pd

from raymeta.cli.story import STORY_VISITS, typical_household


def scores(gains: dict[str, list[float]]) -> pd.DataFrame:
    """Unadapted .3 for all; adapted so much above it after 0, 1, 2, 3 visits."""
    rows = [
        {"method": method, "size": size, "user_id": user, "ndcg_at_10": 0.3 + gained}
        for user, by_visit in gains.items()
        for size, gain in zip(STORY_VISITS, by_visit, strict=False)
        for method, gained in (("adapted", gain), ("unadapted", 0.0))
    ]
    rows.append({"method": "adapted", "size": 10, "user_id": "typical", "ndcg_at_10": 0.9})
    return pd.DataFrame(rows)


def test_it_is_the_one_nearest_to_the_mean_gain() -> None:
    table = scores(
        {
            "lucky": [0.0, 0.3, 0.3, 0.3],
            "typical": [0.0, 0.1, 0.1, 0.1],
            "harmed": [0.0, -0.1, -0.1, -0.1],
            "same": [0.0, 0.05, 0.0, 0.0],
        }
    )
    assert typical_household(table) == ("typical", dict.fromkeys(STORY_VISITS, 0.3))


def test_one_with_nothing_left_to_find_after_some_visit_is_not_taken() -> None:
    table = scores({"short": [0.0, 0.1], "a": [0.0, 0.3, 0.3, 0.3], "b": [0.0, 0.0, 0.1, 0.0]})
    assert typical_household(table)[0] in {"a", "b"}
