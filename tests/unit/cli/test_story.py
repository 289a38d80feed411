"""The household of the demo's story is one that adapting helps as much as it helps on average."""

import numpy as np
import pandas as pd

from raymeta.cli.story import STORY_VISITS, has_full_baskets, typical_household
from raymeta.data.events import History


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


GAINS = {
    "lucky": [0.0, 0.3, 0.3, 0.3],
    "typical": [0.0, 0.1, 0.1, 0.1],
    "harmed": [0.0, -0.1, -0.1, -0.1],
    "same": [0.0, 0.05, 0.0, 0.0],
}


def test_it_is_the_one_nearest_to_the_mean_gain() -> None:
    of_typical = dict.fromkeys(STORY_VISITS, 0.3)
    assert typical_household(scores(GAINS), GAINS.keys()) == ("typical", of_typical)


def test_it_is_chosen_among_those_whose_visits_tell_something() -> None:
    assert typical_household(scores(GAINS), {"lucky", "same"})[0] == "same"
    assert typical_household(scores(GAINS), set())[0] == "typical"


def test_one_with_nothing_left_to_find_after_some_visit_is_not_taken() -> None:
    table = scores({"short": [0.0, 0.1], "a": [0.0, 0.3, 0.3, 0.3], "b": [0.0, 0.0, 0.1, 0.0]})
    assert typical_household(table, {"short", "a"})[0] == "a"


def test_a_visit_of_what_is_known_already_tells_nothing() -> None:
    def history(*baskets: list[int]) -> History:
        item = np.concatenate([np.array(b, np.int64) for b in baskets])
        visit = np.repeat(np.arange(len(baskets)), [len(b) for b in baskets])
        zeros = np.zeros(len(item), np.int64)
        return History(item, zeros, zeros, zeros.astype(np.float32), visit)

    first, second, third = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]
    assert has_full_baskets(history(first, second, third))
    assert not has_full_baskets(history(first, second, [0, 1, 2, 3, 10]))
    assert not has_full_baskets(history(first, second, [10, 11, 12, 13, -1]))
    assert not has_full_baskets(history(first, second))
