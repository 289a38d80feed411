"""How a list becomes better the more is known: the same items to find after every visit.

Protocol P1 takes what a user has out of the target, so that the target changes with the support
size. Here it stays: the items with a positive event after the last of the visits that count, of
those without one before, ranked among all that the user does not have by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView
from raymeta.evaluation.adapted import AdaptedScorer, Adapts
from raymeta.evaluation.metrics import user_metrics
from raymeta.evaluation.protocol import cut_tasks
from raymeta.types import Params


@dataclass(frozen=True)
class FixedTarget:
    """Quality by how much is known, against one target a user.

    Attributes:
        rows: `[T]` positions in the list of histories: those with something left to find.
        ndcg: `[T, V]` nDCG@10 at each support size.
    """

    rows: NDArray[np.int64]
    ndcg: NDArray[np.float64]

    def facts(self) -> dict[str, Any]:
        """How many there are, their mean nDCG@10, and how many gain or lose from first to last."""
        rise = self.ndcg[:, -1] - self.ndcg[:, 0]
        return {
            "count": len(self.rows),
            "mean_ndcg_at_10": self.ndcg.mean(axis=0).tolist(),
            "better": float((rise > 0).mean()),
            "worse": float((rise < 0).mean()),
        }


def measure_fixed_target(
    algorithm: Adapts,
    meta_params: Params,
    histories: Sequence[History],
    sizes: Sequence[int],
    *,
    view: SupportView,
    num_items: int,
    positive_types: Sequence[int],
) -> FixedTarget:
    """Adapts to each user's first visits, for every number in `sizes`, and ranks the same items.

    Args:
        sizes: numbers of visits, ascending; the last decides what is to be found.
    """
    (end,) = cut_tasks(histories, sizes[-1:], unit="visits", positive_types=positive_types)
    scorer = AdaptedScorer(algorithm, meta_params, view=view)
    had, wanted = end.masked(num_items), end.relevant(num_items)
    columns = []
    for visits in sizes:
        known = [history.where(history.visit < visits) for history in end.supports]
        scores = torch.from_numpy(scorer.score(known)).masked_fill(had, -torch.inf)
        columns.append(user_metrics(scores, wanted)[0]["ndcg_at_10"].numpy())
    return FixedTarget(end.user_rows, np.stack(columns, axis=1).astype(np.float64))
