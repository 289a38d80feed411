"""What the shapes of other products share: their names for events, tenants, moments and users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel, to_pascal

from raymeta.config.serving import DEFAULT, CompatConfig
from raymeta.errors import DataError
from raymeta.serve.access import Caller
from raymeta.serve.item_table import ItemTable
from raymeta.serve.recommender import Recommender
from raymeta.serve.routes.access import described
from raymeta.serve.schemas.base import EARLIEST_MS, LATEST_MS
from raymeta.serve.schemas.events import Event, EventsRequest, EventsResponse
from raymeta.serve.service import Service, wall_clock_ms

SCORE_OF_NO_ITEM = 0.0
"""Where a product's answer must have a score and the model can give none."""


class Foreign(BaseModel):
    """A message of another product, in its own key names; keys that are not known here are left
    out, as that product may have more of them."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


class Pascal(Foreign):
    """With keys such as `UserId`."""

    model_config = ConfigDict(alias_generator=to_pascal, validate_by_name=True)


class Camel(Foreign):
    """With keys such as `userId`."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


def _to_ms(value: Any) -> Any:
    """Milliseconds from digits, or from ISO-8601, which is UTC where it names no zone."""
    if not isinstance(value, str):
        return value
    if value.isdigit():
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("write UTC milliseconds, or ISO-8601 such as 2026-03-01") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


MomentMs = Annotated[
    int,
    BeforeValidator(_to_ms, json_schema_input_type=int | str),
    Field(ge=EARLIEST_MS, le=LATEST_MS, strict=True),
]
"""A moment in UTC milliseconds, as products write one."""


def iso(moment_ms: int) -> str:
    """UTC milliseconds as ISO-8601."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Compat:
    """The service as the shapes call it.

    Attributes:
        service: what answers.
        config: how the products' names are read.
    """

    service: Service
    config: CompatConfig

    def event(self, event_type: str, **values: Any) -> Event:
        """An event, its type in this service's words."""
        return Event(event_type=self.config.event_types.get(event_type, event_type), **values)

    async def keep(
        self, tenant: str, events: Mapping[str, Sequence[Event]]
    ) -> dict[str, EventsResponse]:
        """Keeps events by user: each user's all or none; a wrong one is found before any is kept.

        Raises:
            DataError: one cannot be meant.
        """
        writes = self.service.writes
        requests = [
            EventsRequest(user_id=user, events=list(of_user), tenant=tenant)
            for user, of_user in events.items()
        ]
        for request in requests:
            models = self.service.models.tenant(tenant)
            writes.checked(request.events, models, now_ms=wall_clock_ms())
        return {request.user_id: (await writes.add_events(request))[0] for request in requests}

    def recommender(self, tenant: str, variant: str | None = None) -> Recommender:
        """Who answers.

        Raises:
            DataError: there is no such tenant or variant.
        """
        return self.service.models.tenant(tenant).variant(variant)[1]

    def known_by(self, item_ids: Sequence[str], recommender: Recommender) -> list[Event]:
        """Events of a visitor of whom only these items are known: of the type `purchase`, or of
        the first that the model adapts to where it knows no purchases."""
        types = recommender.artifact.event_types
        event_type = "purchase" if "purchase" in types else types[0]
        return [Event(item_id=item_id, event_type=event_type) for item_id in item_ids]


def tenant_of(caller: Caller, named: str | None) -> str:
    """The tenant of a request: the one that it names, or the only one that its key opens, or the
    default: most products' callers have no way to name one.

    Raises:
        ForbiddenError: the key does not open it.
    """
    if named is None and caller.tenants is not None and len(caller.tenants) == 1:
        (named,) = caller.tenants
    return caller.tenant(DEFAULT if named is None else named)


def feature_named(table: ItemTable, name: str) -> str:
    """The feature that `name` means, whatever its case; `name` where there is none."""
    found = [feature for feature in table.features if feature.casefold() == name.casefold()]
    return name if name in table.features or len(found) != 1 else found[0]


def in_shape_of(product: str) -> dict[str, Any]:
    """What the API's own description says of these routes."""
    return described(f"in the shape of {product}", 404, 409, 413, 415)


def user_or_session(user: str | None, session: str | None) -> str:
    """Whose events these are: an anonymous visitor is known by the session.

    Raises:
        DataError: neither is given.
    """
    name = user or session
    if not name:
        raise DataError("Neither a user nor a session is given.", remedy="Send one of them.")
    return name
