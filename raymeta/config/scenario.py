"""Scenarios: what a user's events are used for.

A scenario says which candidates are scored, against what they are judged, and by which metric a
run stops.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raymeta.config.base import StrictModel


class RecommendConfig(StrictModel):
    """Next items out of the whole catalogue; a user's later positive events are to be found."""

    metric: ClassVar[str] = "nDCG@10"

    name: Literal["recommend"] = "recommend"
    """The scenario's name."""

    repeat: bool = False
    """Support items are ranked too, and count where they are bought again: groceries, say."""


class SearchConfig(StrictModel):
    """Order of a query's hits; the later purchases among them are to be found."""

    metric: ClassVar[str] = "nDCG@10"

    name: Literal["search"] = "search"
    """The scenario's name."""

    text_columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("title",)
    """Item columns that a query is matched with."""

    query_columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("title",)
    """Item columns whose words make the query that an item answers: a path of categories, general
    before special, or a title."""

    query_last_words: PositiveInt | None = None
    """Only the last so many words of them: what the thing is comes last in a title."""

    min_query_items: PositiveInt = 5
    """A query that fewer items answer is left out."""

    num_candidates: PositiveInt = 256
    """The hits that are put in order: the items that match best by text."""

    max_queries: PositiveInt = 10
    """Of a user the next so many different queries count."""

    train_queries: PositiveInt = 4
    """So many of them in a training task."""

    encoder: str | None = "minilm"
    """The sentence encoder: `minilm` (the extra `text`), a folder with one, or none for words
    alone."""

    repeat: bool = True
    """Items that the user has are hits too, and count where they are bought again."""


class AdsConfig(StrictModel):
    """Clicks and conversions of what a user is shown; later impressions are to be predicted."""

    metric: ClassVar[str] = "RIG"
    """Relative information gain, 1 - log loss / log loss of the base rates, both targets added."""

    name: Literal["ads"] = "ads"
    """The scenario's name."""


class RatingsConfig(StrictModel):
    """Ratings of items; those that a user gives to some held-back items are to be predicted."""

    name: Literal["ratings"] = "ratings"
    """The scenario's name."""

    query: Literal["last", "random"] = "last"
    """Which of a user's ratings are held back: the last, or some drawn at random."""

    num_query: PositiveInt = 10
    """How many of them."""

    num_draws: PositiveInt = 1
    """With `random`: how often they are drawn for a user, whose score is the mean over draws."""

    judged_by: Literal["error", "order"] = "error"
    """What validation and the tuning of baselines look at: mean absolute error, or nDCG@5."""

    liked_from: float = 4.0
    """A rating that counts as a click in `click_ndcg_at_5`."""

    @property
    def metric(self) -> str:
        """What validation measures; an error with its sign turned, so that higher is better."""
        return "-MAE" if self.judged_by == "error" else "nDCG@5"


class IntentConfig(StrictModel):
    """Whether a user buys in a category within a horizon, and how much of it sells in a week."""

    metric: ClassVar[str] = "RIG"
    """Relative information gain, 1 - log loss / log loss of the categories' rates."""

    name: Literal["intent"] = "intent"
    """The scenario's name."""


SingleScenario = Annotated[
    RecommendConfig | SearchConfig | AdsConfig | RatingsConfig | IntentConfig,
    Field(discriminator="name"),
]
"""One scenario; each class has `metric`, the name of what validation measures (higher is better,
a mean over what is judged), and a `name` to tell it by."""


class SeveralConfig(StrictModel):
    """Several scenarios that one run trains together; one adapted state of a user serves all."""

    metric: ClassVar[str] = "nDCG@10"
    """Over all that is judged in any of them."""

    name: Literal["several"] = "several"
    """The scenario's name."""

    of: Annotated[
        tuple[
            Annotated[RecommendConfig | SearchConfig, Field(discriminator="name")],
            ...,
        ],
        Field(min_length=2),
    ]
    """The scenarios, each at most once."""

    weights: Literal["learned"] | tuple[PositiveFloat, ...] = "learned"
    """What the query loss of each counts: by its uncertainty, learned; or fixed, in their order."""

    @model_validator(mode="after")
    def _consistent(self) -> "SeveralConfig":
        names = [scenario.name for scenario in self.of]
        if len(set(names)) < len(names):
            raise ValueError(f"a scenario is named twice: {', '.join(names)}")
        if self.weights != "learned" and len(self.weights) != len(names):
            raise ValueError(f"{len(self.weights)} weights are given for {len(names)} scenarios")
        return self


ScenarioConfig = Annotated[
    RecommendConfig | SearchConfig | AdsConfig | RatingsConfig | IntentConfig | SeveralConfig,
    Field(discriminator="name"),
]
"""What a run is for: one scenario, or several together."""
