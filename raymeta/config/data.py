"""What a run is about: which data, whose events count, how users are divided."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raymeta.config.base import StrictModel

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class SplitConfig(StrictModel):
    """How users are divided; each part is a salted hash of the user id, so it never moves."""

    kind: Literal["users", "time"] = "users"
    """`users`: K folds over users. `time`: test on users who arrive after a date."""

    num_folds: Annotated[int, Field(ge=2)] = 5
    """Folds over the users that are not locked."""

    fold: NonNegativeInt = 0
    """The fold whose users are the test users of this run."""

    locked_fraction: Fraction = 0.1
    """Users kept aside for a release: scored once, never looked at in between."""

    validation_fraction: Fraction = 0.15
    """Of the users that are neither locked nor test: those that stop and tune the run."""

    boundary: str | None = None
    """With `time`: the ISO-8601 date that separates training events from arriving users."""

    @model_validator(mode="after")
    def _consistent(self) -> "SplitConfig":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} does not exist in {self.num_folds} folds")
        if (self.kind == "time") != (self.boundary is not None):
            raise ValueError("boundary is needed with kind: time, and only there")
        return self


class FeedbackConfig(StrictModel):
    """What comes of an impression: each is joined to the latest impression of its item."""

    click: str = "click"
    """The event type of a click."""

    conversion: str = "purchase"
    """The event type of a conversion, which counts where its impression was clicked."""


class IntentRowsConfig(StrictModel):
    """What is asked of a user: whether a category is bought within a horizon."""

    category_column: str = "product_category"
    """The item column that names the category."""

    num_categories: PositiveInt = 40
    """Those that most training users buy in; an item of another has no probability."""

    horizon_days: PositiveFloat = 7.0
    """The purchase counts within so many days after the moment."""

    max_moments: PositiveInt = 32
    """Adapting sees the last so many moments whose horizon has passed."""


class DataConfig(StrictModel):
    """Which events are positive, which users are tasks, and how a task is cut in two."""

    path: str | None = None
    """The folder that `raymeta prepare` wrote; `--data` overrides it."""

    unit: Literal["visits", "items", "impressions"] = "visits"
    """What support size counts: whole visits (baskets, sessions), single items, or what a user was
    shown."""

    positive_events: tuple[str, ...] = ("purchase",)
    """Event types that make an item relevant in a query."""

    support_events: tuple[str, ...] | None = None
    """Event types that adapting sees; the positive ones if not given."""

    min_value: float | None = None
    """Events with a smaller value (stars, say) are left out, in training, evaluation and serving;
    events without one count. Not given: all events count."""

    min_item_users: PositiveInt = 10
    """An item is in the catalogue if at least so many training users have a positive event on it.
    Counted for all eligible users and scaled to the number of training users."""

    cold_items: Fraction = 0.0
    """For the scenario ratings, and only there: a share of the items, drawn by a hash of their ids,
    that no training user and no support has rated, so that only their features are known; what is
    judged is then their ratings alone."""

    min_units: PositiveInt = 4
    """A user is a task with at least so many visits (or items, with `unit: items`)."""

    max_units: PositiveInt | None = None
    """A user with more is left out, in training too; not given: nobody is. For protocols of
    others that leave busy users out."""

    feedback: FeedbackConfig | None = None
    """With `unit: impressions`, and only there: adapting sees impressions and what came of them."""

    intent: IntentRowsConfig | None = None
    """For the scenario intent, and only there: adapting sees what came true of a user's moments."""

    max_support_events: PositiveInt = 512
    """Adapting sees the last so many events: the retained view, in training and serving alike."""

    user_features: bool = False
    """Adapting also sees the columns of the users table, as a model that reads them wants."""

    max_places: NonNegativeInt = 0
    """Adapting also sees at which place an event happened, of the so many places of most training
    users; 0: it does not."""

    new_item_text: tuple[str, ...] = ()
    """Item columns whose sentence vectors (the extra `text`) tell, beside the features, what an
    item is that training never saw; features alone if none are named."""

    support_sizes: tuple[NonNegativeInt, ...] = (0, 1, 2, 3, 5, 10)
    """Support sizes of the evaluation curve, in units."""

    split: SplitConfig = SplitConfig()
    """How users are divided into training, validation, test and locked."""

    @model_validator(mode="after")
    def _impressions_have_feedback(self) -> "DataConfig":
        if (self.unit == "impressions") != (self.feedback is not None):
            raise ValueError("feedback is needed with unit: impressions, and only there")
        return self
