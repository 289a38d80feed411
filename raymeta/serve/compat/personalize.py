"""Amazon Personalize's routes, runtime and events: what its SDKs send to an endpoint of their own.

Different from Personalize: keys come in `X-API-Key`, signatures are not looked at. The ARN of a
campaign or recommender names a variant, by its last part. Filters are not kept here: a value of
`filterValues` asks for items that have it in the feature of its name. `context`, `properties` of
events and `metricAttribution` are not kept, and there are no actions.
"""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from pydantic import JsonValue

from raymeta.errors import DataError, NotServedError
from raymeta.serve.access import Caller, Scope
from raymeta.serve.compat.base import (
    Compat,
    feature_named,
    in_shape_of,
    tenant_of,
    user_or_session,
)
from raymeta.serve.compat.personalize_shapes import (
    Asked,
    Filtered,
    PersonalizedRanking,
    PredictedItem,
    Promotion,
    PutEvents,
    PutItems,
    PutUsers,
    RankingRequest,
    Recommendations,
    RecommendationsRequest,
    SentEvent,
)
from raymeta.serve.item_table import Condition, ItemTable
from raymeta.serve.routes.access import needs
from raymeta.serve.schemas.base import MaybeName
from raymeta.serve.schemas.events import Event
from raymeta.serve.schemas.items import ItemsRequest, NamedItem
from raymeta.serve.schemas.recommend import (
    MAX_PINS,
    Filter,
    Pin,
    RankRequest,
    RecommendRequest,
    RecommendResponse,
    ScoredItem,
    SessionRequest,
)
from raymeta.serve.schemas.users import UserFeatures
from raymeta.serve.user_events.base import digest

_NAMED = re.compile(r"arn:[^:]+:personalize:[^:]*:[^:]*:(campaign|recommender|filter)/(.+)")


def add_routes(app: FastAPI, compat: Compat) -> None:
    """All of Personalize that is spoken."""
    _add_writes(app, compat)
    service, route = compat.service, in_shape_of("Personalize")
    reader = Depends(needs(service, Scope.READ))
    without_nulls = {**route, "response_model_exclude_none": True}

    @app.post("/recommendations", **without_nulls)
    async def recommend(
        request: RecommendationsRequest,
        caller: Annotated[Caller, reader],
        tenant: MaybeName = None,
    ) -> Recommendations:
        """Items for a user, seen or not; or items that go with one."""
        shop, n = tenant_of(caller, tenant), request.num_results or 25
        table = compat.recommender(shop, _variant(request)).items
        promotion = next(iter(request.promotions), None)
        pins: list[Pin] = []
        if promotion is not None:
            pins = await _promoted(compat, shop, request, promotion, n)
        answer = await _answer(compat, shop, request, n=n, filtered=request, pins=pins)
        return Recommendations(
            item_list=[_item(item, table, request, promotion) for item in answer.items],
            recommendation_id=answer.recommendation_id,
        )

    @app.post("/personalize-ranking", **without_nulls)
    async def rank(
        request: RankingRequest,
        caller: Annotated[Caller, reader],
        tenant: MaybeName = None,
    ) -> PersonalizedRanking:
        """The given items in the user's order, without those that a filter leaves out."""
        shop = tenant_of(caller, tenant)
        table = compat.recommender(shop, _variant(request)).items
        answer = await service.answers.rank(
            RankRequest(
                user_id=request.user_id,
                items=request.input_list,
                variant=_variant(request),
                tenant=shop,
            )
        )
        passing = _passing(table, _filter(table, request))
        ranked = [_item(item, table, request) for item in answer.items if passing(item.id)]
        unknown = [] if request.filter_values else answer.unknown_items or []
        return PersonalizedRanking(
            personalized_ranking=[*ranked, *(PredictedItem(item_id=i) for i in unknown)],
            recommendation_id=answer.recommendation_id,
        )


def _add_writes(app: FastAPI, compat: Compat) -> None:
    service = compat.service
    route = {**in_shape_of("Personalize"), "response_class": Response}
    writer = Depends(needs(service, Scope.WRITE))

    @app.post("/events", **route)
    async def put_events(
        request: PutEvents, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Response:
        """Keeps events of one user, all or none."""
        user = user_or_session(request.user_id, request.session_id)
        events = [event for sent in request.event_list for event in _events(compat, sent, request)]
        await compat.keep(tenant_of(caller, tenant), {user: events})
        return Response()

    @app.post("/users", **route)
    async def put_users(
        request: PutUsers, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Response:
        """Adds or replaces users, one after the other."""
        shop = tenant_of(caller, tenant)
        features = [_features(user.properties) for user in request.users]
        for user, known in zip(request.users, features, strict=True):
            await service.users.put_features(
                shop, user.user_id, UserFeatures(features=known), replace=True
            )
        return Response()

    @app.post("/items", **route)
    async def put_items(
        request: PutItems, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Response:
        """Adds or replaces items, in one version of the catalogue."""
        items = [
            NamedItem(item_id=item.item_id, features=_features(item.properties))
            for item in request.items
        ]
        shop = tenant_of(caller, tenant)
        await service.items.put_many(ItemsRequest(items=items, tenant=shop))
        return Response()


async def _answer(
    compat: Compat,
    shop: str,
    request: RecommendationsRequest,
    *,
    n: int,
    filtered: Filtered,
    pins: list[Pin],
) -> RecommendResponse:
    recommender = compat.recommender(shop, _variant(request))
    common: dict[str, Any] = {
        "n": n,
        "filter": _filter(recommender.items, filtered),
        "pins": pins,
        "exclude_seen": False,
        "variant": _variant(request),
        "tenant": shop,
    }
    given = [] if request.item_id is None else [request.item_id]
    if request.user_id is not None:
        return await compat.service.answers.recommend(
            RecommendRequest(user_id=request.user_id, exclude=given, **common)
        )
    events = compat.known_by(given, recommender)
    return await compat.service.answers.session(
        SessionRequest(events=events, exclude=given, **common)
    )


async def _promoted(
    compat: Compat, shop: str, request: RecommendationsRequest, promotion: Promotion, n: int
) -> list[Pin]:
    """The best items of a promotion, evenly spread over the places."""
    count = round(n * promotion.percent_promoted_items / 100)
    if count > MAX_PINS:
        raise DataError(
            f"The promotion {promotion.name!r} would have {count} items; at most {MAX_PINS} can.",
            remedy="Lower numResults or percentPromotedItems.",
        )
    if count == 0:
        return []
    best = await _answer(compat, shop, request, n=count, filtered=promotion, pins=[])
    places = [(2 * number + 1) * n // (2 * count) for number in range(count)]
    return [
        Pin(item_id=item.id, position=place)
        for item, place in zip(best.items, places, strict=False)
    ]


def _events(compat: Compat, sent: SentEvent, request: PutEvents) -> list[Event]:
    """The event, after an impression of each item that was shown."""
    if sent.item_id is None and not sent.impression:
        raise DataError(
            f"An event of type {sent.event_type!r} is about no item.",
            remedy="Send itemId, or impression.",
        )
    common: dict[str, Any] = {
        "timestamp": sent.sent_at,
        "visit_id": request.session_id,
        "ranking_id": sent.recommendation_id,
    }
    named = None if sent.event_id is None else digest(sent.event_id, size=16).hex()
    events = [
        Event(
            event_type="impression",
            event_id=None if named is None else f"{named}:{position}",
            item_id=item_id,
            position=position,
            **common,
        )
        for position, item_id in enumerate(sent.impression)
    ]
    if sent.item_id is not None:
        values = {"event_id": sent.event_id, "item_id": sent.item_id, "value": sent.event_value}
        events.append(compat.event(sent.event_type, **values, **common))
    return events


def _item(
    item: ScoredItem, table: ItemTable, request: Asked, promotion: Promotion | None = None
) -> PredictedItem:
    wanted = request.metadata_columns.get("ITEMS", [])
    features = (table.describe(item.id) or {}) if wanted else {}
    found = {column: features.get(feature_named(table, column)) for column in wanted}
    return PredictedItem(
        item_id=item.id,
        score=item.score,
        promotion_name=promotion.name if promotion is not None and item.pinned else None,
        metadata={name: str(value) for name, value in found.items() if value is not None}
        if wanted
        else None,
    )


def _variant(request: Asked) -> str | None:
    """The variant that the ARN of a campaign or recommender names; None without one."""
    named = _NAMED.fullmatch(request.campaign_arn or request.recommender_arn or "")
    return None if named is None else named[2]


def _filter(table: ItemTable, asked: Filtered) -> Filter:
    """Feature -> values, of a filter's values.

    Raises:
        NotServedError: a filter without values, whose expression is not known here.
        DataError: a value that is not quoted.
    """
    if not asked.filter_values and _NAMED.fullmatch(asked.filter_arn or ""):
        raise NotServedError(
            f"What the filter {asked.filter_arn!r} leaves out is not known here.",
            remedy="Send filterValues, each under the name of the feature that it is about.",
        )
    wanted: Filter = {}
    for name, text in asked.filter_values.items():
        try:
            values = json.loads(f"[{text}]")
        except ValueError:
            values = [None]
        if not all(isinstance(value, (str, bool, int, float)) for value in values):
            raise DataError(
                f"filterValues.{name} is {text!r}.", remedy='Quote each value: "\\"a\\",\\"b\\"".'
            )
        wanted[feature_named(table, name)] = values
    return wanted


def _passing(table: ItemTable, wanted: Filter) -> Callable[[str], bool]:
    """Says of an item id whether it passes."""
    conditions = tuple(
        Condition(name, any_of=tuple(values) if isinstance(values, list) else None)
        for name, values in sorted(wanted.items())
    )
    table.require(conditions)
    mask = table.mask(conditions)
    return lambda item_id: bool(mask[table.index_of[item_id]])


def _features(text: str) -> dict[str, JsonValue]:
    """Properties, which are JSON within a text.

    Raises:
        DataError: they are not.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(0 < len(name) <= 64 for name in found):
        raise DataError(
            f"properties is {text[:80]!r}.",
            remedy='Write a JSON object as a text: "{\\"color\\": \\"red\\"}".',
        )
    return found
