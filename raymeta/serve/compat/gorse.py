"""Gorse's routes under `/api`.

Different from Gorse: the log keeps every feedback (nothing is summed, nor overwritten by PUT);
feedback with a timestamp counts once, however often it is sent. A recommender's name names a
variant. There is no deleting of single events, no `latest`, no `user-to-user`, no listing, and no
`write-back-delay`. Labels and comments of feedback are not kept. Ids in paths have no slashes.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Query

from raymeta.errors import NotServedError
from raymeta.serve.access import Caller, Scope
from raymeta.serve.compat import gorse_shapes as shapes
from raymeta.serve.compat.base import Compat, in_shape_of, iso, tenant_of
from raymeta.serve.compat.gorse_shapes import Affected, Feedback, KeptFeedback, Scored
from raymeta.serve.routes.access import needs
from raymeta.serve.schemas.base import Id, MaybeId, MaybeName, MaybeText, Name, Text
from raymeta.serve.schemas.events import Event
from raymeta.serve.schemas.items import ItemPatch, ItemsRequest
from raymeta.serve.schemas.recommend import (
    Filter,
    RecommendRequest,
    RecommendResponse,
    SessionRequest,
)
from raymeta.serve.user_events.base import digest
from raymeta.serve.writes import at_most

PUBLIC_PATHS = frozenset({"/api/health/live", "/api/health/ready"})

Count = Annotated[int, Query(ge=1)]
Offset = Annotated[int, Query(ge=0)]
Version = Annotated[str, Header(alias="X-API-Version", description="2: with scores.")]
WriteBack = Annotated[
    MaybeName, Query(alias="write-back-type", description="Keeps what is shown as feedback.")
]
Delay = Annotated[str, Query(alias="write-back-delay", max_length=32)]

_NO_DELAY = frozenset({"", "0", "0s"})


def add_routes(app: FastAPI, compat: Compat) -> None:
    """All of Gorse that is spoken."""
    _add_feedback(app, compat)
    _add_recommendations(app, compat)
    _add_users(app, compat)
    _add_items(app, compat)

    @app.get("/api/health/live", tags=["in the shape of Gorse"])
    async def live() -> shapes.Ready:
        """The process answers."""
        return shapes.Ready(ready=True)

    @app.get("/api/health/ready", **in_shape_of("Gorse") | {"openapi_extra": None})
    async def ready() -> shapes.Ready:
        """Models are loaded and the store answers."""
        await compat.service.ready()
        return shapes.Ready(ready=True)


def _add_feedback(app: FastAPI, compat: Compat) -> None:
    service, route = compat.service, in_shape_of("Gorse")
    writer = Depends(needs(service, Scope.WRITE))
    admin = Depends(needs(service, Scope.ADMIN))

    async def keep(
        feedback: list[Feedback], caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Keeps feedback of any users; a user's is kept all or none."""
        at_most("feedback", len(feedback), service.limits.max_events)
        by_user: dict[str, list[Event]] = {}
        for one in feedback:
            by_user.setdefault(one.user_id, []).append(_event(compat, one))
        done = await compat.keep(tenant_of(caller, tenant), by_user)
        return Affected(row_affected=sum(d.accepted + d.duplicates for d in done.values()))

    app.post("/api/feedback", **route)(keep)
    app.put("/api/feedback", **route)(keep)

    async def kept(
        user_id: Id,
        caller: Annotated[Caller, admin],
        feedback_type: MaybeName = None,
        tenant: MaybeName = None,
    ) -> list[KeptFeedback]:
        """The retained feedback of a user, oldest first."""
        export = await service.users.export(tenant_of(caller, tenant), user_id)
        wanted = compat.config.event_types.get(feedback_type or "", feedback_type)
        return [
            KeptFeedback(
                feedback_type=event["event_type"],
                user_id=user_id,
                item_id=event["item_id"],
                value=event.get("value", 0.0),
                timestamp=iso(event["timestamp_ms"]),
            )
            for event in export.events
            if "item_id" in event and wanted in (None, event["event_type"])
        ]

    # a parameter that the path has not is one of the query
    app.get("/api/user/{user_id}/feedback", **route)(kept)
    app.get("/api/user/{user_id}/feedback/{feedback_type}", **route)(kept)


def _add_recommendations(app: FastAPI, compat: Compat) -> None:
    service, route = compat.service, in_shape_of("Gorse")
    reader = Depends(needs(service, Scope.READ))

    async def recommend(
        user_id: Id,
        caller: Annotated[Caller, reader],
        n: Count = 10,
        offset: Offset = 0,
        category: MaybeText = None,
        write_back_type: WriteBack = None,
        write_back_delay: Delay = "",
        x_api_version: Version = "1",
        tenant: MaybeName = None,
    ) -> list[str] | list[Scored]:
        """Items for a user that the user has not seen."""
        name = tenant_of(caller, tenant)
        if write_back_delay not in _NO_DELAY:
            raise NotServedError(
                f"write-back-delay is {write_back_delay!r}; what is shown counts at once.",
                remedy="Leave it out.",
            )
        if write_back_type is not None:
            caller.require(Scope.WRITE)
        answer = await service.answers.recommend(
            RecommendRequest(
                user_id=user_id, n=n + offset, filter=_filter(compat, category), tenant=name
            )
        )
        if write_back_type is not None and len(answer.items) > offset:
            shown = _shown(compat, answer, write_back_type, offset)
            await compat.keep(name, {user_id: shown})
        scored = _scored(answer, offset)
        return scored if x_api_version == "2" else [item.id for item in scored]

    app.get("/api/recommend/{user_id}", **route)(recommend)
    app.get("/api/recommend/{user_id}/{category}", **route)(recommend)

    async def session(
        feedback: list[Feedback],
        caller: Annotated[Caller, reader],
        n: Count = 10,
        offset: Offset = 0,
        category: MaybeText = None,
        tenant: MaybeName = None,
    ) -> list[Scored]:
        """Items for a visitor known by this feedback alone; nothing is kept."""
        request = SessionRequest(
            events=[_event(compat, one) for one in feedback],
            n=n + offset,
            filter=_filter(compat, category),
            tenant=tenant_of(caller, tenant),
        )
        return _scored(await service.answers.session(request), offset)

    app.post("/api/session/recommend", **route)(session)
    app.post("/api/session/recommend/{category}", **route)(session)

    @app.get("/api/collaborative-filtering/{user_id}", **route)
    async def scored(
        user_id: Id,
        caller: Annotated[Caller, reader],
        n: Count = 10,
        offset: Offset = 0,
        tenant: MaybeName = None,
    ) -> list[Scored]:
        """Items for a user, with scores."""
        request = RecommendRequest(user_id=user_id, n=n + offset, tenant=tenant_of(caller, tenant))
        return _scored(await service.answers.recommend(request), offset)

    async def like(
        name: Name,
        caller: Annotated[Caller, reader],
        item_id: MaybeId = None,
        n: Count = 10,
        offset: Offset = 0,
        category: MaybeText = None,
        tenant: MaybeName = None,
    ) -> list[Scored]:
        """Items for somebody known by one item alone, or by none, by the variant `name`."""
        shop = tenant_of(caller, tenant)
        events = []
        if item_id is not None:
            await service.items.get(shop, item_id)
            events = compat.known_by([item_id], compat.recommender(shop, name))
        request = SessionRequest(
            events=events,
            n=n + offset,
            filter=_filter(compat, category),
            variant=name,
            tenant=shop,
        )
        return _scored(await service.answers.session(request), offset)

    app.get("/api/non-personalized/{name}", **route)(like)
    app.get("/api/item-to-item/{name}/{item_id}", **route)(like)


def _add_users(app: FastAPI, compat: Compat) -> None:
    service, route = compat.service, in_shape_of("Gorse")
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    admin = Depends(needs(service, Scope.ADMIN))

    async def put_all(users: list[shapes.User], shop: str) -> Affected:
        at_most("users", len(users), service.limits.max_items)
        for user in users:
            known = user.model_copy(update={"comment": user.comment or ""})
            features = shapes.user_features(known)
            await service.users.put_features(shop, user.user_id, features, replace=True)
        return Affected(row_affected=len(users))

    @app.post("/api/user", **route)
    async def put(
        user: shapes.User, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Adds or replaces a user."""
        return await put_all([user], tenant_of(caller, tenant))

    @app.post("/api/users", **route)
    async def put_many(
        users: list[shapes.User], caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Adds or replaces users, one after the other."""
        return await put_all(users, tenant_of(caller, tenant))

    @app.get("/api/user/{user_id}", **route)
    async def get(
        user_id: Id, caller: Annotated[Caller, reader], tenant: MaybeName = None
    ) -> shapes.KeptUser:
        """A user's labels."""
        return shapes.kept_user(await service.users.get(tenant_of(caller, tenant), user_id))

    @app.patch("/api/user/{user_id}", **route)
    async def patch(
        user_id: Id,
        user: shapes.UserPatch,
        caller: Annotated[Caller, writer],
        tenant: MaybeName = None,
    ) -> Affected:
        """Changes the labels that are given; the others stay."""
        shop = tenant_of(caller, tenant)
        await service.users.put_features(shop, user_id, shapes.user_features(user), replace=False)
        return Affected(row_affected=1)

    @app.delete("/api/user/{user_id}", **route)
    async def erase(
        user_id: Id, caller: Annotated[Caller, admin], tenant: MaybeName = None
    ) -> Affected:
        """Erases a user with all feedback; no event of before can come back."""
        await service.users.erase(tenant_of(caller, tenant), user_id)
        return Affected(row_affected=1)


def _add_items(app: FastAPI, compat: Compat) -> None:
    service, route = compat.service, in_shape_of("Gorse")
    reader = Depends(needs(service, Scope.READ))
    writer = Depends(needs(service, Scope.WRITE))
    feature = compat.config.category_feature

    async def put_all(items: list[shapes.Item], shop: str) -> Affected:
        if items:
            named = [shapes.named_item(item, feature) for item in items]
            await service.items.put_many(ItemsRequest(items=named, tenant=shop))
        return Affected(row_affected=len(items))

    @app.post("/api/item", **route)
    async def put(
        item: shapes.Item, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Adds or replaces an item; a new one is recommendable at once, from its features."""
        return await put_all([item], tenant_of(caller, tenant))

    @app.post("/api/items", **route)
    async def put_many(
        items: list[shapes.Item], caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Adds or replaces items, in one version of the catalogue."""
        return await put_all(items, tenant_of(caller, tenant))

    @app.get("/api/item/{item_id}", **route)
    async def get(
        item_id: Id, caller: Annotated[Caller, reader], tenant: MaybeName = None
    ) -> shapes.KeptItem:
        """An item as the model and the shop have it."""
        item = await service.items.get(tenant_of(caller, tenant), item_id)
        return shapes.kept_item(item, feature)

    @app.patch("/api/item/{item_id}", **route)
    async def patch(
        item_id: Id,
        item: shapes.ItemChange,
        caller: Annotated[Caller, writer],
        tenant: MaybeName = None,
    ) -> Affected:
        """Changes what is given of an item; the rest stays."""
        shop = tenant_of(caller, tenant)
        await service.items.patch(shop, item_id, shapes.item_patch(item, feature))
        return Affected(row_affected=1)

    @app.delete("/api/item/{item_id}", **route)
    async def delete(
        item_id: Id, caller: Annotated[Caller, writer], tenant: MaybeName = None
    ) -> Affected:
        """Takes an item out of recommendations; feedback on it stays."""
        await service.items.delete(tenant_of(caller, tenant), item_id)
        return Affected(row_affected=1)

    async def categorise(shop: str, item_id: str, category: str, *, belongs: bool) -> Affected:
        item = await service.items.get(shop, item_id)
        others = [c for c in shapes.as_categories(item.features.get(feature)) if c != category]
        categories = shapes.as_category([*others, category] if belongs else others)
        await service.items.patch(shop, item_id, ItemPatch(features={feature: categories}))
        return Affected(row_affected=1)

    @app.put("/api/item/{item_id}/category/{category}", **route)
    async def add_category(
        item_id: Id,
        category: Text,
        caller: Annotated[Caller, writer],
        tenant: MaybeName = None,
    ) -> Affected:
        """Puts an item into a category."""
        return await categorise(tenant_of(caller, tenant), item_id, category, belongs=True)

    @app.delete("/api/item/{item_id}/category/{category}", **route)
    async def remove_category(
        item_id: Id,
        category: Text,
        caller: Annotated[Caller, writer],
        tenant: MaybeName = None,
    ) -> Affected:
        """Takes an item out of a category."""
        return await categorise(tenant_of(caller, tenant), item_id, category, belongs=False)


def _event(compat: Compat, feedback: Feedback) -> Event:
    """Feedback as an event; with a timestamp it has an id, so that sent again it counts once."""
    event_id = None
    if feedback.timestamp is not None:
        sent = (feedback.feedback_type, feedback.item_id, feedback.timestamp, feedback.value)
        event_id = f"gorse:{digest(repr(sent), size=16).hex()}"
    return compat.event(
        feedback.feedback_type,
        event_id=event_id,
        item_id=feedback.item_id,
        timestamp=feedback.timestamp,
        value=feedback.value,
    )


def _shown(compat: Compat, answer: RecommendResponse, event_type: str, offset: int) -> list[Event]:
    return [
        compat.event(
            event_type,
            event_id=f"{answer.recommendation_id}:{position}",
            item_id=item.id,
            ranking_id=answer.recommendation_id,
            position=position,
        )
        for position, item in enumerate(answer.items[offset:])
    ]


def _filter(compat: Compat, category: str | None) -> Filter:
    return {} if category is None else {compat.config.category_feature: category}


def _scored(answer: RecommendResponse, offset: int) -> list[Scored]:
    return [Scored(id=item.id, score=item.score) for item in answer.items[offset:]]
