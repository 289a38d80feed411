"""How live variants do, and how users are dealt to them."""

import datetime

from raymeta.serve.schemas.base import Message


class VariantShare(Message):
    """One variant of a tenant."""

    model_version: str
    """The artifact that answers."""

    share: float
    """Of the users who name no variant, 0..1."""

    is_default: bool
    """Whether it answers where there is no user to deal by."""


class ExperimentsResponse(Message):
    """How users are dealt to variants."""

    tenant: str
    """The shop."""

    salt: str
    """Of the hash that deals them; another one deals all anew."""

    variants: dict[str, VariantShare]
    """By variant."""


class Proportion(Message):
    """A share with its 95% interval."""

    value: float | None
    """Null of none."""

    low: float
    """Lower end (Wilson)."""

    high: float
    """Upper end."""


class Change(Message):
    """A difference of two shares with its 95% interval (Newcombe)."""

    value: float | None
    """Null where either is."""

    low: float
    """Lower end."""

    high: float
    """Upper end."""

    is_clear: bool
    """Whether the interval leaves out zero."""


class OutcomeMetrics(Message):
    """What followed from lists. Impressions are of an item in a list."""

    users: int
    """Who were shown something whose windows are over."""

    impressions: int
    """What they were shown."""

    clicks: int
    """Impressions that were taken up within the window."""

    conversions: int
    """Impressions whose item was bought within the window."""

    open: int
    """Impressions whose window is still open: in none of the counts."""

    click_rate: Proportion
    """Of impressions."""

    conversion_rate: Proportion
    """Of impressions."""

    users_clicked: Proportion
    """Of users: what variants are compared by, since one user's impressions are no independent
    draws."""

    users_converted: Proportion
    """Of users."""

    users_clicked_change: Change | None = None
    """Less the default variant's; not given for the default."""

    users_converted_change: Change | None = None
    """Less the default variant's."""


class VariantMetrics(OutcomeMetrics):
    """What followed from the lists of one variant."""

    scenarios: dict[str, OutcomeMetrics]
    """The same by what the lists were for; a change is to the default variant's lists for it."""


class DayTraffic(Message):
    """What users did and were shown on one day."""

    day: datetime.date
    """In UTC, by when it happened."""

    events: dict[str, int]
    """By event type."""


class SampleRatio(Message):
    """Whether users were split as the shares say."""

    users: dict[str, int]
    """Users who were shown something, by variant."""

    p: float
    """How likely a split at least so uneven is (chi-squared)."""

    alarm: bool
    """Less likely than 0.001: do not trust the comparison before the cause is known."""


class Interleaving(Message):
    """Two variants in one list: whose items users took up."""

    first: str
    """A variant."""

    second: str
    """The other."""

    prefer_first: int
    """Users who clicked more of the first's items."""

    prefer_second: int
    """Of the second's."""

    ties: int
    """As many of each, or none."""

    p: float
    """How likely so uneven a split is between equals (sign test)."""


class OnlineMetricsResponse(Message):
    """How live variants do, worked out from the retained events."""

    tenant: str
    """The shop."""

    as_of_ms: int
    """Up to when events are known, UTC milliseconds."""

    click_window_s: float
    """How long after an impression a click follows from it."""

    conversion_window_s: float
    """How long after an impression a purchase follows from it."""

    variants: dict[str, VariantMetrics]
    """By variant, those of earlier experiments included."""

    sample_ratio: SampleRatio
    """Of the variants that users are dealt to now."""

    interleavings: list[Interleaving]
    """By pair of variants."""

    days: list[DayTraffic]
    """Retained events of the last 30 days, oldest first; days without any are left out."""
