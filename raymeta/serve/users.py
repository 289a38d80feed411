"""Users beyond their events: features, what is known, everything that is stored, and erasure."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from raymeta.config.serving import LimitsConfig, RetentionConfig
from raymeta.errors import DataError, SchemaError, UnknownUserError
from raymeta.serve.models import Models
from raymeta.serve.schemas.users import (
    ErasureReceipt,
    UserExport,
    UserFeatures,
    UserResponse,
    UserStateResponse,
)
from raymeta.serve.states import StateCache
from raymeta.serve.user_events.base import EventStore, UserRecord


class Users:
    """Reads back and changes what is known of users.

    Args:
        store: where they are.
        models: who would answer them.
        states: adapted users in memory.
        limits: how large features may be.
        retention: how long a tombstone stands, for receipts.
        now_ms: the clock, in UTC milliseconds.
    """

    def __init__(
        self,
        store: EventStore,
        models: Models,
        *,
        states: StateCache,
        limits: LimitsConfig,
        retention: RetentionConfig,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._models = models
        self._states = states
        self._limits = limits
        self._retention = retention
        self._now_ms = now_ms

    async def get(self, tenant: str, user_id: str) -> UserResponse:
        """What is known of a user, in short.

        Raises:
            UnknownUserError: nothing is.
        """
        return _response(tenant, user_id, await self._known(tenant, user_id))

    async def put_features(
        self, tenant: str, user_id: str, request: UserFeatures, *, replace: bool
    ) -> UserResponse:
        """Sets features of a user, who may be new."""
        models = self._models.tenant(tenant)
        require_small("features", request.features, self._limits.max_feature_bytes)
        for model in models.all_models():
            vocab = model.trained.user_vocab
            if vocab is not None:
                reads = {field.column for field in vocab.fields}
                _require_kinds(
                    lambda vocab=vocab, reads=reads: vocab.table(  # type: ignore[misc]
                        [{n: v for n, v in request.features.items() if n in reads}]
                    )
                )
        await self._store.put_features(tenant, user_id, request.features, replace=replace)
        return _response(tenant, user_id, await self._store.read(tenant, user_id))

    async def state(self, tenant: str, user_id: str, *, variant: str | None) -> UserStateResponse:
        """What a model makes of a user.

        Raises:
            UnknownUserError: nothing is known.
        """
        name, recommender = self._models.tenant(tenant).variant(variant, user_id)
        record = await self._known(tenant, user_id)
        adapted = recommender.adapted_alone(record)
        return UserStateResponse(
            user_id=user_id,
            tenant=tenant,
            state_version=record.state_version,
            n_events=record.num_events,
            n_retained=len(record.events),
            n_support=adapted.num_support,
            n_seen_items=len(record.seen_items),
            last_event_ms=record.events[-1].timestamp_ms if record.events else None,
            state_bytes=adapted.state_bytes(),
            model_version=recommender.model_version,
            variant=name,
        )

    async def export(self, tenant: str, user_id: str) -> UserExport:
        """Everything that is stored of a user.

        Raises:
            UnknownUserError: nothing is.
        """
        self._models.tenant(tenant)
        record = await self._known(tenant, user_id)
        return UserExport(
            user_id=user_id,
            tenant=tenant,
            features=dict(record.features),
            events=[_without_nulls(asdict(event)) for event in record.events],
            seen_items=sorted(record.seen_items),
            rankings=[asdict(r) for r in await self._store.rankings(tenant, user_id)],
            generation=record.generation,
        )

    async def erase(self, tenant: str, user_id: str) -> ErasureReceipt:
        """Removes everything that is stored of a user, known or not, and says what remains."""
        self._models.tenant(tenant)
        at_ms = self._now_ms()
        erasure = await self._store.erase(tenant, user_id, at_ms=at_ms)
        self._states.drop_user(tenant, user_id)
        named = json.dumps([tenant, user_id, erasure.generation, at_ms])
        return ErasureReceipt(
            receipt_id=hashlib.sha256(named.encode()).hexdigest()[:16],
            user_id=user_id,
            tenant=tenant,
            erased_at_ms=at_ms,
            generation=erasure.generation,
            events_erased=erasure.num_events,
            remains=(
                "A tombstone with the user's id, the time and count of erasures, and digests of "
                f"event ids, for {self._retention.event_id_days} days, so that no event of before "
                "comes back. Other replicas' memory may hold what they knew for an hour. "
                "Models that were trained on the user's events, and copies exported before, are "
                "as they were."
            ),
        )

    async def _known(self, tenant: str, user_id: str) -> UserRecord:
        self._models.tenant(tenant)
        record = await self._store.read(tenant, user_id)
        if not record.is_known:
            raise UnknownUserError(
                f"There are no events of user {user_id!r} in tenant {tenant!r}.",
                remedy="Send some to POST /v1/events; POST /v1/recommend answers without.",
            )
        return record


def require_small(field: str, features: Any, limit: int) -> None:
    """Refuses features that are too large as JSON.

    Raises:
        DataError: naming the size and the limit.
    """
    size = len(json.dumps(features))
    if size > limit:
        raise DataError(
            f"{field} takes {size} bytes as JSON; at most {limit} are kept.",
            remedy="Leave out what no model and no filter reads.",
        )


def _require_kinds(make: Callable[[], object]) -> None:
    try:
        make()
    except SchemaError as error:
        raise DataError(error.message, remedy=error.remedy) from None


def _response(tenant: str, user_id: str, record: UserRecord) -> UserResponse:
    return UserResponse(
        user_id=user_id,
        tenant=tenant,
        features=dict(record.features),
        state_version=record.state_version,
        n_events=record.num_events,
        generation=record.generation,
    )


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
