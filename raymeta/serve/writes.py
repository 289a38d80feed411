"""Events on their way into the store: checked against what models know, then durable or refused."""

import uuid
from collections.abc import Callable, Sequence

from raymeta.config.serving import LimitsConfig
from raymeta.errors import DataError
from raymeta.serve.models import Models, TenantModels
from raymeta.serve.rate_limits import RateLimit
from raymeta.serve.schemas.base import Message
from raymeta.serve.schemas.events import Event, EventsRequest, EventsResponse
from raymeta.serve.user_events.base import (
    AppendResult,
    EventStore,
    IdempotencyKey,
    StoredEvent,
    UserRecord,
    digest,
)


class Writes:
    """Takes events of users.

    Args:
        store: where they are kept.
        models: what they may be.
        limits: how many a request.
        user_rate: how many a user.
        now_ms: the clock, in UTC milliseconds.
    """

    def __init__(
        self,
        store: EventStore,
        models: Models,
        *,
        limits: LimitsConfig,
        user_rate: RateLimit,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._models = models
        self._limits = limits
        self._user_rate = user_rate
        self._now_ms = now_ms

    async def add_events(
        self, request: EventsRequest, *, idempotency_key: str | None = None
    ) -> tuple[EventsResponse, bool]:
        """Keeps events of one user; returns once they are durable.

        Returns:
            What became of them, and whether that is the stored answer to an earlier request.
        """
        result = await self.append(
            request.tenant,
            request.user_id,
            request.events,
            key=self.key_of(request, idempotency_key),
        )
        response = EventsResponse(
            accepted=result.accepted,
            duplicates=result.duplicates,
            erased=result.erased,
            state_version=result.state_version,
            durable=self._store.durable,
        )
        return response, result.replayed

    async def append(
        self, tenant: str, user_id: str, events: Sequence[Event], *, key: IdempotencyKey | None
    ) -> AppendResult:
        """Checks events and keeps them, all or none.

        Raises:
            DataError: one cannot be meant.
            ConflictError: an id or the key was used before with another content.
            RateLimitError: the user has too many.
            StoreError: the store does not answer; they may have been kept or not.
        """
        stored, received_ms = self._accepted(tenant, user_id, events)
        return await self._store.append(tenant, user_id, stored, received_ms=received_ms, key=key)

    async def append_and_read(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None,
        ahead: Callable[[UserRecord], None],
    ) -> tuple[AppendResult, UserRecord]:
        """`append`, and the user as it stands then; `ahead` as for the store's."""
        stored, received_ms = self._accepted(tenant, user_id, events)
        return await self._store.append_and_read(
            tenant, user_id, stored, received_ms=received_ms, key=key, ahead=ahead
        )

    def _accepted(
        self, tenant: str, user_id: str, events: Sequence[Event]
    ) -> tuple[list[StoredEvent], int]:
        """The events as they are stored, and when they came."""
        received_ms = self._now_ms()
        stored = self.checked(events, self._models.tenant(tenant), now_ms=received_ms)
        self._user_rate.take((tenant, user_id), len(stored))
        return stored, received_ms

    def key_of(self, request: Message, key: str | None) -> IdempotencyKey | None:
        """The caller's key with the request it stands for."""
        if key is None:
            return None
        return IdempotencyKey(key, digest(request.model_dump_json(), size=16))

    def checked(
        self, events: Sequence[Event], models: TenantModels, *, now_ms: int
    ) -> list[StoredEvent]:
        """The events as they are stored.

        Raises:
            DataError: there are too many, a type is unknown, or a time lies ahead.
        """
        at_most("events", len(events), self._limits.max_events)
        known_types = models.event_types
        latest = now_ms + 1000 * self._limits.max_future_s
        stored = []
        for index, event in enumerate(events):
            if event.event_type not in known_types:
                raise DataError(
                    f"events.{index}.event_type is {event.event_type!r}, which no model knows.",
                    remedy=f"Use one of: {', '.join(sorted(known_types))}.",
                )
            at = now_ms if event.timestamp is None else event.timestamp
            if at > latest:
                raise DataError(
                    f"events.{index}.timestamp is {at} ms, {(at - now_ms) // 1000} s after the "
                    "server's clock.",
                    remedy="Send UTC milliseconds; leave it out to have the server's time.",
                )
            stored.append(
                StoredEvent(
                    event_id=event.event_id or uuid.uuid4().hex,
                    item_id=event.item_id,
                    event_type=event.event_type,
                    timestamp_ms=at,
                    value=event.value,
                    visit_id=event.visit_id,
                    query=event.query,
                    ranking_id=event.ranking_id,
                    position=event.position,
                    propensity=event.propensity,
                    timestamp_given=event.timestamp is not None,
                    place=event.place,
                )
            )
        return stored


def at_most(field: str, value: int, limit: int) -> None:
    """Refuses more than a limit.

    Raises:
        DataError: naming the field and the limit.
    """
    if value > limit:
        raise DataError(
            f"{field} is {value}; at most {limit} are taken in one request.",
            remedy="Ask for less." if field == "n" else "Split the request.",
        )
