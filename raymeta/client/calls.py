"""Each route as a function: from arguments to a `Call`, which says what to send and how to read
the answer. Both clients have a method for each, with these arguments; nothing is sent here.

A client adds its tenant and key. Values are checked by the messages that the service itself reads.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import httpx

from raymeta.serve.schemas.base import Message
from raymeta.serve.schemas.events import Event, EventsRequest, EventsResponse
from raymeta.serve.schemas.items import (
    ItemPatch,
    ItemResponse,
    ItemsRequest,
    ItemsResponse,
    ItemValues,
    NamedItem,
)
from raymeta.serve.schemas.online import ExperimentsResponse, OnlineMetricsResponse
from raymeta.serve.schemas.operations import ModelsResponse, ReadyResponse
from raymeta.serve.schemas.recommend import (
    Filter,
    Pin,
    PredictRequest,
    RankRequest,
    RecommendRequest,
    RecommendResponse,
    SessionRequest,
)
from raymeta.serve.schemas.users import (
    ErasureReceipt,
    UserExport,
    UserFeatures,
    UserResponse,
    UserStateResponse,
)

AnswerT = TypeVar("AnswerT")
MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True)
class Call(Generic[AnswerT]):
    """One request and how its answer is read.

    Attributes:
        method: of HTTP.
        path: with ids in it, quoted.
        parse: from an answer with status 200.
        body: sent as JSON, without what is at its default.
        params: of the query.
        user_id: whose request it is; replicas that hold this user's state are reached by it.
        idempotency_key: the caller's; None for one made up by the client.
        writes_events: whether the request is sent with an `Idempotency-Key`.
        names_tenant: whether path or body say whose shop it is, so that the client does not.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], AnswerT]
    body: Message | Mapping[str, Any] | None = None
    params: Mapping[str, str | float] = field(default_factory=dict)
    user_id: str | None = None
    idempotency_key: str | None = None
    writes_events: bool = False
    names_tenant: bool = False


class EventsPage(NamedTuple):
    """Events of some users.

    Attributes:
        events: one dict an event, as `/v1/export/events` has it.
        next_after: where the next page begins; None where this is the last.
    """

    events: list[dict[str, Any]]
    next_after: str | None


def events(
    user_id: str, events: Sequence[Event], *, idempotency_key: str | None = None
) -> Call[EventsResponse]:
    """Keeps events of one user, all or none; returns once they are durable."""
    body = EventsRequest(user_id=user_id, events=list(events))
    return Call(
        "POST",
        "/v1/events",
        _as(EventsResponse),
        body,
        user_id=user_id,
        idempotency_key=idempotency_key,
        writes_events=True,
    )


def recommend(
    user_id: str,
    *,
    n: int = 10,
    events: Sequence[Event] = (),
    filter: Filter | None = None,
    exclude: Sequence[str] = (),
    exclude_seen: bool = True,
    exclude_bought: bool = False,
    pins: Sequence[Pin] = (),
    diversity: float = 0.0,
    exploration: float | None = None,
    interleave: tuple[str, str] | None = None,
    explain: bool = False,
    variant: str | None = None,
    idempotency_key: str | None = None,
) -> Call[RecommendResponse]:
    """Items for a user; `events` are made durable first and count in the answer."""
    body = RecommendRequest(
        user_id=user_id,
        n=n,
        events=list(events),
        filter=filter or {},
        exclude=list(exclude),
        exclude_seen=exclude_seen,
        exclude_bought=exclude_bought,
        pins=list(pins),
        diversity=diversity,
        exploration=exploration,
        interleave=None if interleave is None else list(interleave),
        explain=explain,
        variant=variant,
    )
    return _asked("/v1/recommend", body, user_id, bool(events), idempotency_key)


def rank(
    user_id: str,
    items: Sequence[str],
    *,
    query: str | None = None,
    scenario: Literal["recommend", "search", "ads"] = "recommend",
    slot: int | None = None,
    events: Sequence[Event] = (),
    explain: bool = False,
    variant: str | None = None,
    idempotency_key: str | None = None,
) -> Call[RecommendResponse]:
    """Given items in the user's order: the hits of a search, the ads of a page."""
    body = RankRequest(
        user_id=user_id,
        items=list(items),
        query=query,
        scenario=scenario,
        slot=slot,
        events=list(events),
        explain=explain,
        variant=variant,
    )
    return _asked("/v1/rank", body, user_id, bool(events), idempotency_key)


def predict(
    user_id: str,
    items: Sequence[str],
    *,
    targets: Sequence[Literal["click", "conversion", "purchase_intent"]],
    slot: int | None = None,
    variant: str | None = None,
) -> Call[RecommendResponse]:
    """Probabilities of what a user will do with items, of models trained for that."""
    body = PredictRequest(
        user_id=user_id, items=list(items), targets=list(targets), slot=slot, variant=variant
    )
    return _asked("/v1/predict", body, user_id, False, None)


def session(
    events: Sequence[Event] = (),
    *,
    n: int = 10,
    filter: Filter | None = None,
    exclude: Sequence[str] = (),
    exclude_seen: bool = True,
    exclude_bought: bool = False,
    pins: Sequence[Pin] = (),
    diversity: float = 0.0,
    explain: bool = False,
    variant: str | None = None,
) -> Call[RecommendResponse]:
    """Items for a visitor known by these events alone; nothing is kept."""
    body = SessionRequest(
        n=n,
        events=list(events),
        filter=filter or {},
        exclude=list(exclude),
        exclude_seen=exclude_seen,
        exclude_bought=exclude_bought,
        pins=list(pins),
        diversity=diversity,
        explain=explain,
        variant=variant,
    )
    return _asked("/v1/session/recommend", body, None, False, None)


def user(user_id: str) -> Call[UserResponse]:
    """A user's features and counts."""
    return Call("GET", _user(user_id), _as(UserResponse), user_id=user_id)


def put_user(user_id: str, features: Mapping[str, Any]) -> Call[UserResponse]:
    """Replaces all features of a user, who may be new."""
    body = UserFeatures(features=dict(features))
    return Call("PUT", _user(user_id), _as(UserResponse), body, user_id=user_id)


def patch_user(user_id: str, features: Mapping[str, Any]) -> Call[UserResponse]:
    """Changes some features of a user; a None removes one."""
    body = UserFeatures(features=dict(features))
    return Call("PATCH", _user(user_id), _as(UserResponse), body, user_id=user_id)


def erase_user(user_id: str) -> Call[ErasureReceipt]:
    """Erases a user, known or not; no event of before can come back."""
    return Call("DELETE", _user(user_id), _as(ErasureReceipt), user_id=user_id)


def user_state(user_id: str, *, variant: str | None = None) -> Call[UserStateResponse]:
    """What the model makes of a user."""
    params = {} if variant is None else {"variant": variant}
    path = f"{_user(user_id)}/state"
    return Call("GET", path, _as(UserStateResponse), params=params, user_id=user_id)


def export_user(user_id: str) -> Call[UserExport]:
    """Everything that is stored of a user."""
    return Call("GET", f"{_user(user_id)}/export", _as(UserExport), user_id=user_id)


def item(item_id: str) -> Call[ItemResponse]:
    """An item as the model and the shop have it."""
    return Call("GET", _item(item_id), _as(ItemResponse))


def put_item(
    item_id: str, features: Mapping[str, Any], *, available: bool = True
) -> Call[ItemsResponse]:
    """Adds or replaces an item; a new one is recommendable at once, from its features."""
    body = ItemValues(features=dict(features), available=available)
    return Call("PUT", _item(item_id), _as(ItemsResponse), body)


def put_items(items: Sequence[NamedItem]) -> Call[ItemsResponse]:
    """Adds or replaces items, in one version of the catalogue."""
    body = ItemsRequest(items=list(items))
    return Call("POST", "/v1/items:batch", _as(ItemsResponse), body)


def patch_item(
    item_id: str, features: Mapping[str, Any] | None = None, *, available: bool | None = None
) -> Call[ItemsResponse]:
    """Changes some features of an item (a None removes one), or whether it is available."""
    body = ItemPatch(features=dict(features or {}), available=available)
    return Call("PATCH", _item(item_id), _as(ItemsResponse), body)


def delete_item(item_id: str) -> Call[ItemsResponse]:
    """Takes an item out of recommendations; events on it stay. Where the first answer was lost on
    the way, the retry finds no item: `UnknownItemError`."""
    return Call("DELETE", _item(item_id), _as(ItemsResponse))


def events_page(*, after: str = "", users: int = 100) -> Call[EventsPage]:
    """The retained events of `users` users whose ids follow `after`."""
    return Call("GET", "/v1/export/events", _page, params={"after": after, "users": users})


def models() -> Call[ModelsResponse]:
    """The artifacts that answer, and what they were trained for."""
    return Call("GET", "/v1/models", _as(ModelsResponse))


def experiments() -> Call[ExperimentsResponse]:
    """How users are dealt to variants."""
    return Call("GET", "/v1/experiments", _as(ExperimentsResponse))


def online_metrics(
    *, click_hours: float = 24.0, conversion_hours: float = 168.0
) -> Call[OnlineMetricsResponse]:
    """Clicks and conversions by variant, within so many hours of being shown."""
    windows = {"click_hours": click_hours, "conversion_hours": conversion_hours}
    return Call("GET", "/v1/metrics/online", _as(OnlineMetricsResponse), params=windows)


def ready() -> Call[ReadyResponse]:
    """Models are loaded and the store answers; `ServiceError` where not."""
    return Call("GET", "/readyz", _as(ReadyResponse))


def request(
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    params: Mapping[str, str | float] | None = None,
) -> Call[Any]:
    """Any route, as it is, without the client's tenant: its answer as plain values, or as text
    where it is not JSON."""
    return Call(
        method.upper(),
        path,
        _plain,
        body,
        params=params or {},
        writes_events=True,
        names_tenant=True,
    )


def _asked(
    path: str,
    body: Message,
    user_id: str | None,
    writes_events: bool,
    idempotency_key: str | None,
) -> Call[RecommendResponse]:
    return Call(
        "POST",
        path,
        _as(RecommendResponse),
        body,
        user_id=user_id,
        idempotency_key=idempotency_key,
        writes_events=writes_events,
    )


def _as(kind: type[MessageT]) -> Callable[[httpx.Response], MessageT]:
    # a service that is newer than this client may say more than it knows of
    return lambda response: kind.model_validate_json(response.content, extra="ignore")


def _page(response: httpx.Response) -> EventsPage:
    following = response.headers.get("x-next-after")
    lines = [json.loads(line) for line in response.text.split("\n") if line]
    return EventsPage(lines, None if following is None else unquote(following))


def _plain(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0]
    return response.json() if kind == "application/json" else response.text


def _user(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"


def _item(item_id: str) -> str:
    return f"/v1/items/{quote(item_id, safe='')}"
