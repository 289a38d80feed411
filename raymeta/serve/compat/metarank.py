"""Metarank's routes: `/feedback`, `/rank/MODEL`, `/recommend/MODEL`, `/health`.

Different from Metarank: a model's name names a variant. Fields of a list and of its items are read
where the model has a use for them, which is `query` for one trained for search. Events count at
once, so there is nothing to flush. `/train` and `/inference` are not here, nor is JSON Lines:
several events come as a JSON array.
"""

import time
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI

from raymeta.errors import UnknownItemError
from raymeta.serve.access import Caller, Scope
from raymeta.serve.answers import scenarios
from raymeta.serve.compat.base import (
    SCORE_OF_NO_ITEM,
    Compat,
    in_shape_of,
    tenant_of,
    user_or_session,
)
from raymeta.serve.compat.metarank_shapes import (
    Accepted,
    Healthy,
    Interaction,
    ItemEvent,
    NamedValue,
    Ranked,
    RankedItem,
    Ranking,
    RankingEvent,
    RecommendationsRequest,
    Sent,
    UserEvent,
)
from raymeta.serve.routes.access import needs
from raymeta.serve.schemas.base import MaybeName, Name
from raymeta.serve.schemas.events import Event
from raymeta.serve.schemas.items import ItemsRequest, NamedItem
from raymeta.serve.schemas.recommend import (
    RankRequest,
    RecommendRequest,
    RecommendResponse,
    SessionRequest,
)
from raymeta.serve.schemas.users import UserFeatures
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import digest
from raymeta.serve.writes import at_most

PUBLIC_PATHS = frozenset({"/health"})


def add_routes(app: FastAPI, compat: Compat) -> None:
    """All of Metarank that is spoken."""
    service, route = compat.service, in_shape_of("Metarank")
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    without_nulls = {**route, "response_model_exclude_none": True}

    @app.post("/feedback", **route)
    async def feedback(
        sent: Annotated[Sent | list[Sent], Body()],
        caller: Annotated[Caller, writer],
        tenant: MaybeName = None,
    ) -> Accepted:
        """Keeps events, one or several; those of one user all or none."""
        started = time.perf_counter()
        events = sent if isinstance(sent, list) else [sent]
        at_most("events", len(events), service.limits.max_events)
        by_tenant: dict[str, list[Sent]] = {}
        for event in events:
            shop = tenant_of(caller, event.tenant or tenant)
            by_tenant.setdefault(shop, []).append(event)
        updated = 0
        for shop, of_tenant in by_tenant.items():
            updated += await _keep(compat, shop, of_tenant)
        took = int((time.perf_counter() - started) * 1000)
        return Accepted(accepted=len(events), tookMillis=took, updated=updated)

    @app.post("/rank/{model}", **without_nulls)
    async def rank(
        model: Name,
        ranking: Ranking,
        caller: Annotated[Caller, reader],
        explain: bool = False,
        tenant: MaybeName = None,
    ) -> Ranked:
        """The given items in the order of a user's scores, by the variant `model`."""
        shop = tenant_of(caller, ranking.tenant or tenant)
        searches = "search" in scenarios(compat.recommender(shop, model))
        request = RankRequest(
            user_id=user_or_session(ranking.user, ranking.session),
            items=[item.id for item in ranking.items],
            query=ranking.query() if searches else None,
            explain=explain,
            variant=model,
            tenant=shop,
        )
        return _ranked(await service.answers.rank(request))

    @app.post("/recommend/{model}", **without_nulls)
    async def recommend(
        model: Name,
        request: RecommendationsRequest,
        caller: Annotated[Caller, reader],
        tenant: MaybeName = None,
    ) -> Ranked:
        """Items like those given, or for a user where none are, by the variant `model`."""
        shop = tenant_of(caller, tenant)
        if request.user is not None and not request.items:
            answer = await service.answers.recommend(
                RecommendRequest(user_id=request.user, n=request.count, variant=model, tenant=shop)
            )
        else:
            known = compat.known_by(request.items, compat.recommender(shop, model))
            answer = await service.answers.session(
                SessionRequest(events=known, n=request.count, variant=model, tenant=shop)
            )
        return _ranked(answer)

    @app.get("/health", tags=route["tags"])
    async def health() -> Healthy:
        """The process answers."""
        return Healthy()


async def _keep(compat: Compat, shop: str, sent: list[Sent]) -> int:
    """Keeps events of one tenant; gives how many were not known before."""
    by_user: dict[str, list[Event]] = {}
    for one in sent:
        if isinstance(one, RankingEvent | Interaction):
            user = user_or_session(one.user, one.session)
            by_user.setdefault(user, []).extend(_events(compat, one))
    known = await compat.keep(shop, by_user)
    items = [one for one in sent if isinstance(one, ItemEvent)]
    users = [one for one in sent if isinstance(one, UserEvent)]
    if items:
        await _put_items(compat.service, shop, items)
    for user_event in users:
        features = UserFeatures(features=_values(user_event.fields))
        await compat.service.users.put_features(shop, user_event.user, features, replace=False)
    return sum(done.accepted for done in known.values()) + len(items) + len(users)


def _events(compat: Compat, sent: "RankingEvent | Interaction") -> list[Event]:
    """An interaction as one event; a ranking as the impression of each of its items."""
    if isinstance(sent, Interaction):
        return [
            compat.event(
                sent.type,
                event_id=sent.id,
                item_id=sent.item,
                timestamp=sent.timestamp,
                visit_id=sent.session,
                ranking_id=sent.ranking,
            )
        ]
    return [
        Event(
            event_id=f"{digest(sent.id, size=16).hex()}:{position}",
            item_id=item.id,
            event_type="impression",
            timestamp=sent.timestamp,
            visit_id=sent.session,
            query=sent.query(),
            ranking_id=sent.id,
            position=position,
        )
        for position, item in enumerate(sent.items)
    ]


async def _put_items(service: Service, shop: str, sent: list[ItemEvent]) -> None:
    """Adds what is known of items to what was, in one version of the catalogue."""
    merged: dict[str, NamedItem] = {}
    for one in sent:
        if one.item not in merged:
            try:
                before = await service.items.get(shop, one.item)
            except UnknownItemError:
                merged[one.item] = NamedItem(item_id=one.item)
            else:
                merged[one.item] = NamedItem(
                    item_id=one.item, features=before.features, available=before.available
                )
        features = {**merged[one.item].features, **_values(one.fields)}
        merged[one.item] = merged[one.item].model_copy(update={"features": features})
    await service.items.put_many(ItemsRequest(items=list(merged.values()), tenant=shop))


def _values(fields: list[NamedValue]) -> dict[str, Any]:
    return {field.name: field.value for field in fields}


def _ranked(answer: RecommendResponse) -> Ranked:
    items = [
        RankedItem(
            item=item.id,
            score=item.score,
            features=None
            if item.reasons is None
            else [
                NamedValue(name=f"{reason.event_type} {reason.item_id}"[:64], value=reason.effect)
                for reason in item.reasons
            ],
        )
        for item in answer.items
    ]
    last = items[-1].score if items else SCORE_OF_NO_ITEM
    unknown = [RankedItem(item=item_id, score=last) for item_id in answer.unknown_items or []]
    return Ranked(took=round(answer.took_ms), items=[*items, *unknown])
