"""A small client: tells the service what one user did, and prints what it recommends after each.

Run:  python serve_apps/client.py --user ann ITEM [ITEM ...]
"""

import argparse
import json
import urllib.error
import urllib.request
import uuid
from typing import Any


class Client:
    """The service at `base_url`, over the standard library alone."""

    def __init__(self, base_url: str, *, timeout_s: float = 10.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s

    def recommend(
        self, user_id: str, *, n: int = 5, events: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Items for a user; `events` are made durable first and count in the answer."""
        body = {"user_id": user_id, "n": n, "events": events or []}
        request = urllib.request.Request(
            f"{self._base_url}/v1/recommend",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                # with several replicas, the one that has this user's state in memory
                "X-Session-Id": urllib.request.quote(user_id),
            },
        )
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


def event(item_id: str, *, event_type: str) -> dict[str, Any]:
    """One event, with an id of its own: sent again after a lost answer, it still counts once."""
    return {"event_id": uuid.uuid4().hex, "item_id": item_id, "event_type": event_type}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("items", nargs="*", help="items that the user buys, one after the other")
    parser.add_argument("--user", default="ann")
    parser.add_argument("--event-type", default="purchase")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    client = Client(arguments.url)
    try:
        show("so far", client.recommend(arguments.user))
        for item_id in arguments.items:
            bought = event(item_id, event_type=arguments.event_type)
            show(f"after {item_id}", client.recommend(arguments.user, events=[bought]))
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{problem['status']} {problem['title']}: {problem['detail']}") from None
    except urllib.error.URLError as error:
        raise SystemExit(f"No service answers at {arguments.url}: {error.reason}") from None


def show(when: str, answer: dict[str, Any]) -> None:
    items = ", ".join(f"{item['id']} ({item['score']:.2f})" for item in answer["items"])
    adapted = f"{answer['n_support']} events" if answer["n_support"] else "nobody in particular"
    print(f"{when}: {items}  [for {adapted}, {answer['took_ms']:.1f} ms]")


if __name__ == "__main__":
    main()
