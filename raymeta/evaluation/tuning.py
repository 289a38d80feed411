"""Baselines tuned on validation users, each with the same number of configurations.

A configuration is a fit with other settings; what is maximised is nDCG@10, averaged over users and
then over the support sizes from 1 on. Mixture weights need no fit: they are searched anew for
every configuration, apart for each support size. Test users are never seen here.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from raymeta.data.episodes import Unit
from raymeta.data.interactions import InteractionMatrix
from raymeta.errors import ConfigError
from raymeta.evaluation.baselines.ease import Ease, EaseSolver
from raymeta.evaluation.baselines.ials import ImplicitAls
from raymeta.evaluation.baselines.mixture import Mixture, standardise
from raymeta.evaluation.baselines.neighbours import ItemNeighbours
from raymeta.evaluation.baselines.popularity import Popularity
from raymeta.evaluation.protocol import Scorer, Tasks
from raymeta.evaluation.validation import ValidationBlock, best_weights, mean_ndcg

Settings = dict[str, float]

NUM_CONFIGURATIONS = 16
"""Settings tried for each baseline that has any."""

GRIDS: Mapping[str, Sequence[Settings]] = {
    "item_knn": [
        {"shrink": shrink, "exponent": exponent}
        for shrink, exponent in itertools.product((1, 10, 100, 500), (0.5, 0.6, 0.75, 0.9))
    ],
    "ease": [
        {"regularisation": float(f"{value:.3g}")}
        for value in np.geomspace(30, 100_000, NUM_CONFIGURATIONS)
    ],
    "ials": [
        {"dim": 64, "unobserved": unobserved, "regularisation": regularisation}
        for unobserved, regularisation in itertools.product(
            (0.3, 1.0, 3.0, 10.0), (0.0003, 0.001, 0.003, 0.01)
        )
    ],
    "places": [
        {"prior_users": float(f"{value:.3g}")}
        for value in np.geomspace(0.3, 300, NUM_CONFIGURATIONS)
    ],
}
"""What is tried, by baseline; the mixtures search the grid of the part that they add."""

BASELINES = (
    "popularity",
    "item_knn",
    "ease",
    "ials",
    "mixture",
    "mixture_with_ease",
    "mixture_with_places",
)
"""Every baseline by name, in the order of a report."""

NEEDS_PLACES = frozenset({"mixture_with_places"})
"""Those that there are only where adapting sees places."""


@dataclass(frozen=True)
class Tuned:
    """A baseline with the settings that were best on validation.

    Attributes:
        scorer: fitted with those settings.
        settings: what was chosen; mixture weights by support size.
        num_configurations: how many were fitted.
        validation_ndcg: mean over support sizes of nDCG@10 with these settings.
        wall_s: seconds that tuning took, less what it shared with baselines before it.
    """

    name: str
    scorer: Scorer
    settings: dict[str, Any]
    num_configurations: int
    validation_ndcg: float
    wall_s: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Everything but the scorer, for a report."""
        return {
            "settings": self.settings,
            "num_configurations": self.num_configurations,
            "validation_ndcg_at_10": self.validation_ndcg,
            "wall_s": round(self.wall_s, 2),
        }


class BaselineSearch:
    """Tunes baselines by name; what several of them need is computed once.

    Args:
        train: interactions of the training users.
        validation: tasks of the validation users; size 0 is left out.
        unit: what support size counts.
        positive_types: with `unit="items"`, the events that count.
        places: smoothing by `GRIDS` -> popularity by place; None where places are not seen.
        note: told what is being tuned.
    """

    def __init__(
        self,
        train: InteractionMatrix,
        validation: Sequence[Tasks],
        *,
        unit: Unit,
        positive_types: Sequence[int],
        places: Callable[[Settings], Scorer] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._train = train
        self._unit: Unit = unit
        self._positive_types = positive_types
        self._places = places
        self._note = note
        self._blocks = [
            ValidationBlock.of(tasks, train.num_items) for tasks in validation if tasks.size > 0
        ]
        if not self._blocks:
            raise ConfigError(
                "Baselines are tuned on support sizes from 1 on, and there is none.",
                remedy="Add one to the support sizes, for example 0,1,2,3,5,10.",
            )
        self._prior_I = torch.from_numpy(standardise(train.log_popularity[None])[0])
        self._solver: EaseSolver | None = None
        self._tuned: dict[str, Tuned] = {}

    def tune(self, name: str) -> Tuned:
        """The baseline `name` at its best.

        Raises:
            ConfigError: there is no such baseline.
            DataError: the catalogue is too large for it.
        """
        methods: Mapping[str, Callable[[], Tuned]] = {
            "popularity": self._popularity,
            "item_knn": lambda: self._best("item_knn", self._neighbours),
            "ease": lambda: self._best("ease", self._ease),
            "ials": lambda: self._best("ials", self._ials),
            "mixture": self._mixture,
            "mixture_with_ease": self._mixture_with_ease,
            "mixture_with_places": self._mixture_with_places,
        }
        if name not in methods:
            raise ConfigError(
                f"There is no baseline {name!r}.", remedy=f"Choose from: {', '.join(BASELINES)}."
            )
        if name not in self._tuned:
            self._note(f"Tuning {name.replace('_', ' ')}")
            started = time.perf_counter()
            tuned = methods[name]()
            self._tuned[name] = replace(tuned, wall_s=time.perf_counter() - started)
        return self._tuned[name]

    def _popularity(self) -> Tuned:
        scorer = Popularity(self._train)
        return Tuned("popularity", scorer, {}, 1, mean_ndcg(scorer, self._blocks))

    def _best(self, name: str, make: Callable[[Settings], Scorer]) -> Tuned:
        grid = GRIDS[name]
        scores = [mean_ndcg(make(settings), self._blocks) for settings in grid]
        chosen = int(np.argmax(scores))
        return Tuned(name, make(grid[chosen]), grid[chosen], len(grid), scores[chosen])

    def _mixture(self) -> Tuned:
        """Log-popularity and neighbours: the neighbours' settings with their weights by size."""
        grid = GRIDS["item_knn"]
        found = []
        for settings in grid:
            part = self._neighbours(settings)
            scores = [[block.standardised(part)] for block in self._blocks]
            found.append(best_weights(self._prior_I, self._blocks, scores))
        chosen = int(np.argmax([score for _, score in found]))
        weights, score = found[chosen]
        scorer = self._mix([self._neighbours(grid[chosen])], weights)
        settings_found = {"item_knn": grid[chosen], "weights": weights}
        return Tuned("mixture", scorer, settings_found, len(grid), score)

    def _mixture_with_ease(self) -> Tuned:
        """Neighbours as in the mixture; EASE's setting with both weights by size."""
        settings = self.tune("mixture").settings["item_knn"]
        return self._with_part("mixture_with_ease", "ease", self._ease, {"item_knn": settings})

    def _mixture_with_places(self) -> Tuned:
        """Neighbours and EASE as in the mixtures; places' setting with all weights by size."""
        if self._places is None:
            raise ConfigError(
                "Places are not seen, so nothing can be mixed with them.",
                remedy="Set data.max_places, or leave mixture_with_places out.",
            )
        found = self.tune("mixture_with_ease").settings
        settings = {name: found[name] for name in ("item_knn", "ease")}
        return self._with_part("mixture_with_places", "places", self._places, settings)

    def _with_part(
        self,
        name: str,
        part: str,
        make: Callable[[Settings], Scorer],
        settings: Mapping[str, Settings],
    ) -> Tuned:
        """A mixture whose other parts have `settings` with one more, tuned; all weights anew."""
        made = {"item_knn": self._neighbours, "ease": self._ease}
        others = [made[other](chosen) for other, chosen in settings.items()]
        known = [[block.standardised(other) for other in others] for block in self._blocks]
        grid = GRIDS[part]
        found = []
        for tried in grid:
            scorer = make(tried)
            scores = [
                [*parts, block.standardised(scorer)]
                for parts, block in zip(known, self._blocks, strict=True)
            ]
            found.append(best_weights(self._prior_I, self._blocks, scores))
        chosen = int(np.argmax([score for _, score in found]))
        weights, score = found[chosen]
        scorer = self._mix([*others, make(grid[chosen])], weights)
        facts = {**settings, part: grid[chosen], "weights": weights}
        return Tuned(name, scorer, facts, len(grid), score)

    def _neighbours(self, settings: Settings) -> Scorer:
        return ItemNeighbours(self._train, **settings)

    def _ease(self, settings: Settings) -> Scorer:
        if self._solver is None:
            self._solver = EaseSolver(self._train)
        return Ease(self._solver, **settings)

    def _ials(self, settings: Settings) -> Scorer:
        return ImplicitAls(
            self._train,
            dim=int(settings["dim"]),
            unobserved=settings["unobserved"],
            regularisation=settings["regularisation"],
        )

    def _mix(self, parts: Sequence[Scorer], weights: Mapping[int, Sequence[float]]) -> Scorer:
        return Mixture(
            self._train,
            parts,
            weights=weights,
            unit=self._unit,
            positive_types=self._positive_types,
        )
