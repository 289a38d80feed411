"""A Serve application that does nothing: the ceiling of the mode in which another is measured.

It reads the same body, answers with about as many bytes, and neither adapts nor keeps anything.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve

_ANSWER = {
    "items": [{"id": f"item-{n}", "score": 0.5, "prior_score": 0.25} for n in range(10)],
    "fallback": None,
}


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class NoopReplica:
    """Answers the same to everybody."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.post("/v1/recommend")
        async def recommend(request: _Anything) -> dict[str, Any]:
            del request
            return _ANSWER

        return app


def build_app(args: dict[str, Any]) -> serve.Application:
    """Builds the application; `args` are `num_replicas`, `num_cpus` and `max_ongoing_requests`."""
    deployment = serve.deployment(
        name="Noop",
        num_replicas=int(args.get("num_replicas", 1)),
        max_ongoing_requests=int(args.get("max_ongoing_requests", 64)),
        max_queued_requests=int(args.get("max_queued_requests", 256)),
        ray_actor_options={"num_cpus": float(args.get("num_cpus", 0.5))},
    )(serve.ingress()(NoopReplica))
    return deployment.bind()
