"""Scenarios: what a user's events are used for.

A scenario says which candidates are scored, against what they are judged, and by which metric a
run stops.
"""

from typing import ClassVar, Literal

from raymeta.config.base import StrictModel


class RecommendConfig(StrictModel):
    """Next items out of the whole catalogue; a user's later positive events are to be found."""

    metric: ClassVar[str] = "nDCG@10"

    name: Literal["recommend"] = "recommend"
    """The scenario's name."""

    repeat: bool = False
    """Support items are ranked too, and count where they are bought again: groceries, say."""


ScenarioConfig = RecommendConfig
"""Any scenario; each class has `metric`, the name of what validation measures (higher is better,
a mean over what is judged), and a `name` to tell it by."""
