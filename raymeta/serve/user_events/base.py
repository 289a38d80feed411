"""What an event store promises, and the rows it keeps.

A store keeps, for each (tenant, user): the last events in time order, every item the user has
seen, which event ids were taken and with what content, features, the rankings that were logged,
and a version that grows with each change that a state is derived from; and, for each tenant, the
items that changed since the artifact was trained. Seen items and taken ids outlive the retained
events. Leaves the meaning of events to the artifact, and states to the recommender.

An erased user leaves a tombstone: the id, when and how often it was erased, and the digests of the
event ids that were taken, so that no event of before can come back late.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from raymeta.errors import ConfigError

SCHEMA_VERSION = 3
"""Of the stored form. An older one is migrated, a newer one refused; none is read by guess."""

MAX_RANKINGS = 200
"""Logged rankings kept a user."""

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Retention:
    """What bounds a store; the view that `adapt` is defined on is `events`.

    Attributes:
        events: events kept a user, at least 1.
        user_ttl_ms: a user without an append for that long is forgotten; None: never.
        event_id_ttl_ms: how long an event id stays taken, and a tombstone stands.
        idempotency_ttl_ms: how long an idempotency key is answered for.
    """

    events: int
    user_ttl_ms: int | None = None
    event_id_ttl_ms: int = 90 * DAY_MS
    idempotency_ttl_ms: int = 2 * DAY_MS

    def __post_init__(self) -> None:
        if self.user_ttl_ms is not None and self.user_ttl_ms < self.event_id_ttl_ms:
            # a tombstone must outlive every id that it keeps from coming back
            raise ConfigError(
                f"Users are forgotten after {self.user_ttl_ms} ms, before event ids, which stay "
                f"taken for {self.event_id_ttl_ms} ms.",
                remedy="Give the users' time at least that of the event ids.",
            )


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of one user.

    Attributes:
        event_id: the caller's, unique within the user; what a repeat is recognised by.
        item_id: the shop's id, which may be one that no artifact knows; None for a search.
        event_type: e.g. `purchase`.
        timestamp_ms: UTC milliseconds.
        value: rating, quantity or price.
        visit_id: the basket, order or session it belongs to.
        query: what was searched for.
        ranking_id: the list it came from, such as an answer's `recommendation_id`.
        position: 0-based place in that list.
        propensity: probability with which the list showed the item there.
        timestamp_given: whether the caller gave the timestamp; it is the server's clock otherwise.
        place: where it happened: a branch, a channel, a country's site.
    """

    event_id: str
    item_id: str | None
    event_type: str
    timestamp_ms: int
    value: float | None = None
    visit_id: str | None = None
    query: str | None = None
    ranking_id: str | None = None
    position: int | None = None
    propensity: float | None = None
    timestamp_given: bool = True
    place: str | None = None

    def marks_seen(self) -> bool:
        """Whether the item counts as seen: an impression was shown, not yet taken up."""
        return self.item_id is not None and self.event_type != "impression"

    def order(self) -> tuple[int, str, str]:
        """What events are sorted by, before the order of their arrival."""
        return (self.timestamp_ms, self.item_id or "", self.event_type)

    def body_digest(self) -> bytes:
        """8 bytes of what the caller sent under `event_id`; a time that it did not send has no
        part in it, so that sending the same event again gives the same digest."""
        sent = (
            self.item_id,
            self.event_type,
            self.timestamp_ms if self.timestamp_given else None,
            self.value,
            self.visit_id,
            self.query,
            self.ranking_id,
            self.position,
            self.propensity,
            *(() if self.place is None else (self.place,)),
        )
        return digest(json.dumps(sent), size=8)


def id_digest(event_id: str) -> bytes:
    """What a taken event id is remembered by: 16 bytes, whatever its length, and not readable."""
    return digest(event_id, size=16)


def digest(text: str, *, size: int) -> bytes:
    """`size` bytes of BLAKE2b."""
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key for one request: the same key and body get the first answer again.

    Attributes:
        key: the caller's, unique within the tenant.
        body_digest: of the request; the same key with another is refused.
    """

    key: str
    body_digest: bytes


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of an append.

    Attributes:
        state_version: the user's version after it.
        accepted: events that are now durable and were not before.
        duplicates: events whose id was taken already, before or within this append.
        erased: events of before the user's erasure; they are not kept.
        replayed: whether this is the stored answer to an earlier request with the same key.
    """

    state_version: int
    accepted: int
    duplicates: int
    erased: int = 0
    replayed: bool = False


class UserVersion(NamedTuple):
    """Names all of a store that an answer to a user is made from: states are cached by it.

    Attributes:
        number: the state version; 0 for a user the store does not know.
        epoch_ms: when the user became known; a user forgotten after `user_ttl_ms` starts another.
        catalogue: the version of the tenant's catalogue.
    """

    number: int = 0
    epoch_ms: int = 0
    catalogue: int = 0


NO_VERSION = UserVersion()


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as one moment saw it, never a mixture of two.

    Attributes:
        version: 0 for a user the store does not know.
        num_events: events accepted since the user became known or was erased, retained or not.
        events: the retained ones, by (timestamp, item id, event type, arrival).
        seen_items: ids of items with an event other than an impression, retained or not.
        features: what the shop said of the user, by feature name.
        generation: how often the user was erased.
    """

    version: UserVersion = NO_VERSION
    num_events: int = 0
    events: tuple[StoredEvent, ...] = ()
    seen_items: frozenset[str] = frozenset()
    features: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0

    @property
    def state_version(self) -> int:
        return self.version.number

    @property
    def is_known(self) -> bool:
        """Whether anything is stored of the user beside a tombstone."""
        return self.num_events > 0 or bool(self.features)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure did.

    Attributes:
        generation: how often the user was erased, this time included.
        state_version: of the now empty user.
        num_events: events erased, retained or not.
    """

    generation: int
    state_version: int
    num_events: int


@dataclass(frozen=True, slots=True)
class LoggedRanking:
    """A list that was shown by chance, with what is needed to learn from it.

    Attributes:
        ranking_id: the answer's `recommendation_id`; later events name it.
        timestamp_ms: UTC milliseconds.
        model_version: the artifact that scored.
        slots: (item id, propensity) by position.
    """

    ranking_id: str
    timestamp_ms: int
    model_version: str
    slots: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item of a tenant's catalogue as it is now, beside what the artifact knows.

    Attributes:
        item_id: the shop's id.
        features: by feature name.
        available: whether it may be recommended.
        deleted: whether the shop took it out; its events stay.
        version: the catalogue version that made it so; given by the store.
    """

    item_id: str
    features: Mapping[str, Any] = field(default_factory=dict)
    available: bool = True
    deleted: bool = False
    version: int = 0


class EventStore(Protocol):
    """The record of a service; every method may be called from any event loop or thread.

    All raise `StoreError` where the store cannot be reached in time; what was asked may then have
    been done or not, and asking again with the same event ids does it once.
    """

    @property
    def durable(self) -> bool:
        """Whether what was answered for outlives a crash of the store's machine."""
        ...

    async def append(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
    ) -> AppendResult:
        """Adds events, all or none; returns once they would survive the loss of this process.

        The new version is given in the same transaction, so a version names one set of events
        whichever replica wrote it. Events whose timestamp or receipt is not after the user's
        erasure are left out and counted.

        Raises:
            ConflictError: an event id or the key was used before with another content.
        """
        ...

    async def append_and_read(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
        ahead: Callable[[UserRecord], None] | None = None,
    ) -> tuple[AppendResult, UserRecord]:
        """`append`, and the user as it stands then, seen in the same transaction.

        A store that has the record while it waits for its disk calls `ahead` with it, in the
        caller's event loop, perhaps several times. It is not durable yet and may never be: what is
        made of it may leave the process only after this returned the very same object.
        """
        ...

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        """The user after every change that any process was answered for."""
        ...

    async def version(self, tenant: str, user_id: str) -> UserVersion:
        """`read(...).version` alone: cheap, to see whether a cached state still holds."""
        ...

    async def put_features(
        self, tenant: str, user_id: str, features: Mapping[str, Any], *, replace: bool
    ) -> int:
        """Sets features (a None removes one), or all of them; gives the user's new version."""
        ...

    async def log_ranking(self, tenant: str, user_id: str, ranking: LoggedRanking) -> None:
        """Keeps a ranking of a user, the last `MAX_RANKINGS`; no change of version."""
        ...

    async def rankings(self, tenant: str, user_id: str) -> tuple[LoggedRanking, ...]:
        """The logged rankings of a user, oldest first."""
        ...

    async def erase(self, tenant: str, user_id: str, *, at_ms: int) -> Erasure:
        """Removes all that is stored of a user but the tombstone; the version grows.

        A user of whom nothing is stored gets a tombstone too: an append may be under way. An
        erasure of no later time than the last one was sent again, or comes late: it does nothing,
        since what is there now came after it.
        """
        ...

    async def user_ids(self, tenant: str, *, after: str, limit: int) -> list[str]:
        """Known users with an id above `after`, ascending, at most `limit`."""
        ...

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        """Replaces items, all in one new catalogue version, which is returned."""
        ...

    async def item_changes(self, tenant: str, *, after: int) -> list[ItemChange]:
        """Items whose version is above `after`, by (version, id)."""
        ...

    async def sweep(self) -> int:
        """Removes what has outlived its retention; gives how many rows. Safe to call at any time
        and from any process; what has expired is not read in between either."""
        ...

    async def check(self) -> None:
        """Raises `StoreError` where the store does not answer."""
        ...

    def close(self) -> None:
        """Finishes what was begun and lets go of files and threads; safe to call twice."""
        ...
