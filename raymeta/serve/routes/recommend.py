"""The routes that answer with items."""

from typing import Annotated

from fastapi import Depends, FastAPI, Response

from raymeta.serve.access import Caller, Scope
from raymeta.serve.routes import direct
from raymeta.serve.routes.access import described, needs
from raymeta.serve.routes.events import IdempotencyKey
from raymeta.serve.schemas.recommend import (
    PredictRequest,
    RankRequest,
    RecommendRequest,
    RecommendResponse,
    SessionRequest,
)
from raymeta.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of recommendations."""
    caller_of = needs(service, Scope.READ)
    reader = Depends(caller_of)
    answers = described("recommendations", 409, 413, 415)
    listed = {"response_model": RecommendResponse, **answers}

    @direct.post(app, "/v1/recommend", RecommendRequest, caller_of, **listed)
    async def recommend(
        request: RecommendRequest,
        caller: Annotated[Caller, reader],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Items for a user, adapted to every event answered for, and to those sent along.

        To send events along takes a key that may write as well.
        """
        _may_answer(caller, request)
        answering = service.answers.recommend
        if request.interleave is not None:
            answering = service.online.interleaved
        return _json(await answering(request, idempotency_key=idempotency_key))

    @direct.post(app, "/v1/rank", RankRequest, caller_of, **listed)
    async def rank(
        request: RankRequest,
        caller: Annotated[Caller, reader],
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Given items in the order of a user's scores: the hits of a search, the ads of a page."""
        _may_answer(caller, request)
        return _json(await service.answers.rank(request, idempotency_key=idempotency_key))

    @app.post("/v1/predict", **answers)
    async def predict(
        request: PredictRequest, caller: Annotated[Caller, reader]
    ) -> RecommendResponse:
        """Probabilities that a user clicks, converts or buys, of models trained for that."""
        caller.tenant(request.tenant)
        return await service.answers.predict(request)

    @direct.post(app, "/v1/session/recommend", SessionRequest, caller_of, **listed)
    async def recommend_in_session(
        request: SessionRequest, caller: Annotated[Caller, reader]
    ) -> Response:
        """Items for a visitor known by the events of the request alone; nothing is kept."""
        caller.tenant(request.tenant)
        return _json(await service.answers.session(request))


def _json(answer: RecommendResponse) -> Response:
    """As bytes, once: the framework would validate again what was made here."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _may_answer(caller: Caller, request: RecommendRequest | RankRequest) -> None:
    caller.tenant(request.tenant)
    if request.events or getattr(request, "exploration", None) is not None:
        caller.require(Scope.WRITE)
