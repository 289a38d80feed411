"""What followed from the lists that users were shown: clicks and conversions by variant, and by
what the lists were for.

An item counts as shown when an impression of it is reported under its list's id. A click is a later
act on it that names the list. A conversion is a later purchase of it by the same user that names
the list, or names none and follows the last list that showed the item. Only what happens within a
window counts, by the time at which it happened: an event that arrives late still finds its list,
since all is worked out anew from the events. What was shown so lately that its window is still open
is counted apart and is in no rate, since its clicks and purchases are yet to come.

Clicks on an interleaved list are credits of the ranking that picked the item, known by the position
that the impression reports.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from raymeta.evaluation.online.interleaving import Preference
from raymeta.evaluation.online.statistics import Rate, rate

IMPRESSION, PURCHASE = "impression", "purchase"
DAY_MS = 86_400_000

GroupT = TypeVar("GroupT")

_Key = tuple[str, str]
"""An impression: a list's id and an item's."""


@dataclass(frozen=True)
class Act:
    """One thing that a user did or was shown.

    Attributes:
        item_id: of the catalogue or not.
        event_type: `impression`, `purchase`, or another act, which counts as a click.
        timestamp_ms: when it happened.
        list_id: the list that it names.
        position: 0-based place in that list.
    """

    item_id: str
    event_type: str
    timestamp_ms: int
    list_id: str | None = None
    position: int | None = None


@dataclass(frozen=True)
class Origin:
    """Who made a list.

    Attributes:
        variants: one, or the two of an interleaved list.
        from_first: of an interleaved list, for each place, whether the first of them picked it.
        scenario: what the list was for.
    """

    variants: tuple[str, ...]
    from_first: tuple[bool, ...] = ()
    scenario: str = "recommend"


@dataclass(frozen=True)
class Windows:
    """How long after an impression something is its doing."""

    click_ms: int = DAY_MS
    conversion_ms: int = 7 * DAY_MS


@dataclass(frozen=True)
class Outcome:
    """Counts of one variant; impressions are (list, item) pairs.

    Attributes:
        users: who were shown something whose windows are over.
        users_clicked: of those, who took up something of it.
        users_converted: of those, who bought something of it.
        impressions: shown, windows over.
        clicks: impressions that were taken up.
        conversions: impressions whose item was bought.
        open: shown, window still open; in none of the others.
    """

    users: int = 0
    users_clicked: int = 0
    users_converted: int = 0
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    open: int = 0

    def click_rate(self) -> Rate:
        """Of impressions, for reading; one user's impressions are not independent."""
        return rate(self.clicks, self.impressions)

    def conversion_rate(self) -> Rate:
        """Of impressions."""
        return rate(self.conversions, self.impressions)

    def users_clicked_rate(self) -> Rate:
        """Of users: what variants are compared by."""
        return rate(self.users_clicked, self.users)

    def users_converted_rate(self) -> Rate:
        """Of users."""
        return rate(self.users_converted, self.users)


@dataclass
class Tally:
    """Adds up users, one after the other.

    Args:
        origin_of: who made the list of an id; None where it is no list of ours.
        windows: what counts as following.
        now_ms: the time up to which events are known.

    Attributes:
        outcomes: by variant; lists of one variant only.
        by_scenario: the same by (variant, scenario); a user may be in several of a variant's.
        preferences: by the two variants of interleaved lists.
    """

    origin_of: Callable[[str], Origin | None]
    windows: Windows
    now_ms: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    by_scenario: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    preferences: dict[tuple[str, ...], Preference] = field(default_factory=dict)

    def add(self, acts: Sequence[Act]) -> None:
        """One user's acts, in any order."""
        shown = _impressions(acts)
        by_variant: dict[str, list[Act]] = defaultdict(list)
        by_scenario: dict[tuple[str, str], list[Act]] = defaultdict(list)
        interleaved: dict[tuple[str, ...], list[Act]] = defaultdict(list)
        for act in shown.values():
            match self.origin_of(_key(act)[0]):
                case None:
                    continue
                case Origin(variants=(variant,), scenario=scenario):
                    by_variant[variant].append(act)
                    by_scenario[variant, scenario].append(act)
                case Origin(variants=variants):
                    interleaved[variants].append(act)
        if not by_variant and not interleaved:
            return
        clicked = self._clicked(shown, acts)
        bought = self._bought(shown, acts)
        self._count(self.outcomes, by_variant, clicked, bought)
        self._count(self.by_scenario, by_scenario, clicked, bought)
        for variants, of_variants in interleaved.items():
            if over := self._over(of_variants):
                before = self.preferences.get(variants, Preference())
                credits = self._credits([shown[key] for key in over & clicked])
                self.preferences[variants] = before.with_user(*credits)

    def _count(
        self,
        outcomes: dict[GroupT, Outcome],
        shown: Mapping[GroupT, Sequence[Act]],
        clicked: set[_Key],
        bought: set[_Key],
    ) -> None:
        """One more user in each group that it was shown something of."""
        for group, of_group in shown.items():
            over = self._over(of_group)
            counted = outcomes.get(group, Outcome())
            outcomes[group] = _more(counted, over, clicked, bought, len(of_group) - len(over))

    def _over(self, shown: Iterable[Act]) -> set[_Key]:
        """The impressions whose windows are over."""
        wait_ms = max(self.windows.click_ms, self.windows.conversion_ms)
        return {_key(act) for act in shown if act.timestamp_ms + wait_ms <= self.now_ms}

    def _credits(self, clicks: Iterable[Act]) -> tuple[int, int]:
        """Clicked impressions of interleaved lists, by who picked them."""
        first = second = 0
        for act in clicks:
            origin = self.origin_of(_key(act)[0])
            if origin is None or act.position is None or act.position >= len(origin.from_first):
                continue
            first += origin.from_first[act.position]
            second += not origin.from_first[act.position]
        return first, second

    def _clicked(self, shown: dict[_Key, Act], acts: Iterable[Act]) -> set[_Key]:
        """The impressions that were taken up."""
        return {
            _key(act)
            for act in acts
            if act.event_type not in (IMPRESSION, PURCHASE)
            and _key(act) in shown
            and 0 <= act.timestamp_ms - shown[_key(act)].timestamp_ms <= self.windows.click_ms
        }

    def _bought(self, shown: dict[_Key, Act], acts: Iterable[Act]) -> set[_Key]:
        """The impressions that purchases follow from, each from one at most."""
        found = set()
        for act in acts:
            if act.event_type != PURCHASE:
                continue
            follows = [
                (impression.timestamp_ms, key)
                for key, impression in shown.items()
                if key[1] == act.item_id
                and (act.list_id is None or act.list_id == key[0])
                and 0 <= act.timestamp_ms - impression.timestamp_ms <= self.windows.conversion_ms
            ]
            if follows:
                found.add(max(follows)[1])
        return found


def _more(
    before: Outcome, over: set[_Key], clicked: set[_Key], bought: set[_Key], still_open: int
) -> Outcome:
    """One more user of a variant."""
    return replace(
        before,
        users=before.users + bool(over),
        users_clicked=before.users_clicked + bool(over & clicked),
        users_converted=before.users_converted + bool(over & bought),
        impressions=before.impressions + len(over),
        clicks=before.clicks + len(over & clicked),
        conversions=before.conversions + len(over & bought),
        open=before.open + still_open,
    )


def _key(act: Act) -> _Key:
    return (act.list_id or "", act.item_id)


def _impressions(acts: Iterable[Act]) -> dict[_Key, Act]:
    """The first impression of each item in each list."""
    shown: dict[_Key, Act] = {}
    for act in acts:
        if act.event_type == IMPRESSION and act.list_id is not None:
            earlier = shown.get(_key(act), act)
            shown[_key(act)] = min(earlier, act, key=lambda a: a.timestamp_ms)
    return shown
