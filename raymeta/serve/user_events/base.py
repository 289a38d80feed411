"""What an event store promises, and the rows it keeps.

A store keeps, for each (tenant, user): the last events in time order, every item the user has
seen, every event id that was taken, and a version that grows with each append that added
something. The latter three outlive the retained events. Leaves the meaning of events to the
artifact, and states to the recommender.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SCHEMA_VERSION = 1
"""Of the stored form. A store of another version is refused, never read by guess."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of one user.

    Attributes:
        event_id: the caller's, unique within the user; what a repeat is recognised by.
        item_id: the shop's id; may be one that no artifact knows.
        event_type: e.g. `purchase`.
        timestamp_ms: UTC milliseconds.
        value: rating, quantity or price.
        visit_id: the basket, order or session it belongs to.
        query: what was searched for.
        ranking_id: the list it came from, such as an answer's `recommendation_id`.
        position: 0-based place in that list.
        propensity: probability with which the list showed the item there.
    """

    event_id: str
    item_id: str
    event_type: str
    timestamp_ms: int
    value: float | None = None
    visit_id: str | None = None
    query: str | None = None
    ranking_id: str | None = None
    position: int | None = None
    propensity: float | None = None

    def marks_seen(self) -> bool:
        """Whether the item counts as seen: an impression was shown, not yet taken up."""
        return self.event_type != "impression"


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of an append.

    Attributes:
        state_version: the user's version after it.
        accepted: events that are now durable and were not before.
        duplicates: events whose id was taken already, before or within this append.
    """

    state_version: int
    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as one moment saw it, never a mixture of two.

    Attributes:
        state_version: 0 for a user the store has never seen.
        num_events: events ever accepted, retained or not.
        events: the retained ones, by (timestamp, item id, event type, arrival).
        seen_items: ids of items with an event other than an impression, retained or not.
    """

    state_version: int = 0
    num_events: int = 0
    events: tuple[StoredEvent, ...] = ()
    seen_items: frozenset[str] = frozenset()


class EventStore(Protocol):
    """The event log of a service; every method may be called from any event loop or thread.

    All raise `StoreError` where the store cannot be reached in time.
    """

    async def append(
        self, tenant: str, user_id: str, events: Sequence[StoredEvent]
    ) -> AppendResult:
        """Adds events, all or none; returns once they would survive the loss of this process.

        The new version is given in the same transaction, so a version names one set of events
        whichever replica wrote it.
        """
        ...

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        """The user after every append that any process was answered for."""
        ...

    async def version(self, tenant: str, user_id: str) -> int:
        """`read(...).state_version` alone: cheap, to see whether a cached state still holds."""
        ...

    async def check(self) -> None:
        """Raises `StoreError` where the store does not answer."""
        ...

    def close(self) -> None:
        """Finishes what was begun and lets go of files and threads; safe to call twice."""
        ...
