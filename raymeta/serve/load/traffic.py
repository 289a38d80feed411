"""What is asked and when: arrivals, users and events of a shop, drawn from a seed.

Requests are made before the first is sent, so that making them takes nothing from sending them.

Shapes: R requests.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymeta.errors import DataError


@dataclass(frozen=True)
class Traffic:
    """A shop's visitors.

    Attributes:
        num_users: returning users; the k-th most frequent comes with weight 1 / k^zipf.
        zipf: how unequal they are; 0 for all alike.
        new_share: of requests that are a new user's.
        write_share: of requests that bring a fresh event, which is kept before the answer.
        num_recommendations: items asked for.
        seed: of all draws.
        affinity: whether requests name the user for the balancer (`X-Session-Id`).
    """

    num_users: int = 10_000
    zipf: float = 1.0
    new_share: float = 0.1
    write_share: float = 1.0
    num_recommendations: int = 10
    seed: int = 0
    affinity: bool = False

    def bodies(self, item_ids: Sequence[str], event_type: str, *, run: str) -> Iterator[bytes]:
        """Bodies of `POST /v1/recommend`, without end; `run` keeps runs' users and ids apart."""
        rng = np.random.default_rng(self.seed)
        weights = 1.0 / np.arange(1, self.num_users + 1) ** self.zipf
        weights /= weights.sum()
        number = 0
        while True:
            at_a_time = 4096
            users = rng.choice(self.num_users, size=at_a_time, p=weights)
            items = rng.integers(len(item_ids), size=at_a_time)
            is_new, writes = rng.random((2, at_a_time))
            for user, item, new, write in zip(users, items, is_new, writes, strict=True):
                number += 1
                is_fresh = new < self.new_share
                user_id = f"{run}-new-{number}" if is_fresh else f"{run}-{user}"
                event = {
                    "event_id": f"{run}-{number}",
                    "item_id": item_ids[item],
                    "event_type": event_type,
                }
                body = {
                    "user_id": user_id,
                    "n": self.num_recommendations,
                    "events": [event] if write < self.write_share else [],
                }
                yield json.dumps(body).encode()


def http_requests(
    bodies: Iterator[bytes],
    *,
    host: str,
    path: str,
    headers: dict[str, str],
    affinity: bool = False,
) -> Iterator[bytes]:
    """The bodies as HTTP/1.1 requests, ready to be written to a socket."""
    fixed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{fixed}"
    for body in bodies:
        session = f"X-Session-Id: {json.loads(body)['user_id']}\r\n" if affinity else ""
        yield f"{head}{session}Content-Length: {len(body)}\r\n\r\n".encode() + body


def arrivals(
    rate: float, duration_s: float, *, burst: float = 1.0, seed: int = 0
) -> NDArray[np.float64]:
    """When requests are sent, in seconds from the start, `[R]`: a Poisson process.

    Args:
        rate: requests a second on the average.
        duration_s: how long.
        burst: above 1, every second second has so many times the rate of the other.
        seed: of the draws.

    Raises:
        DataError: a value is not positive, or there is no request.
    """
    if rate <= 0 or duration_s <= 0 or burst < 1:
        raise DataError(
            f"There is no load of rate {rate:g} for {duration_s:g} s with bursts of {burst:g}.",
            remedy="Give a rate and a duration above 0, and a burst of 1 or more.",
        )
    rng = np.random.default_rng(seed)
    # drawn at the highest rate, then thinned to the rate of the moment (Lewis and Shedler 1979)
    high = 2.0 * rate * burst / (1.0 + burst)
    low = high / burst
    count = rng.poisson(high * duration_s)
    times = np.sort(rng.uniform(0.0, duration_s, size=count))
    is_high = times.astype(np.int64) % 2 == 0
    kept = times[is_high | (rng.random(count) < low / high)]
    if len(kept) == 0:
        raise DataError(
            f"A rate of {rate:g} a second for {duration_s:g} s gave no request.",
            remedy="Give a longer duration.",
        )
    return kept
