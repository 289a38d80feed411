"""When a request is sent again, and after how long: decided here, acted on by the clients.

Every request of the client may be sent again: events carry an `Idempotency-Key`, and other changes
set a value. So whatever may have been lost on the way is tried again, and what was refused is not.
"""

import random
from dataclasses import dataclass, field

import httpx

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""Late, too often, or no replica answered."""

_PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Retries:
    """Exponential backoff with full jitter: before attempt a (from 1), a wait drawn evenly from
    0 to min(`max_wait_s`, `first_wait_s` 2^(a-1)), added to what `Retry-After` asks for.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: clients that failed together
    do not come back together.

    Attributes:
        attempts: how often a request is sent at most.
        first_wait_s: the longest wait before the second attempt.
        max_wait_s: the longest backoff; a `Retry-After` above it is not waited for.
        draws: where the jitter comes from.
    """

    attempts: int = 4
    first_wait_s: float = 0.1
    max_wait_s: float = 5.0
    draws: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def wait_s(self, outcome: httpx.Response | httpx.TransportError, *, sent: int) -> float | None:
        """Seconds to wait before sending again; None where the outcome stands.

        Args:
            outcome: what became of the last attempt.
            sent: attempts so far, from 1.
        """
        if sent >= self.attempts or not _may_pass(outcome):
            return None
        asked_s = 0.0 if isinstance(outcome, httpx.TransportError) else retry_after_s(outcome)
        if asked_s > self.max_wait_s:
            return None
        return asked_s + self.draws.uniform(
            0.0, min(self.max_wait_s, self.first_wait_s * 2.0 ** (sent - 1))
        )


def retry_after_s(response: httpx.Response) -> float:
    """What `Retry-After` asks for; 0 without one, or with a date, which the service never sends."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0


def _may_pass(outcome: httpx.Response | httpx.TransportError) -> bool:
    if isinstance(outcome, httpx.TransportError):
        return True
    if outcome.status_code == 500:
        # the service says what it failed at; a proxy whose replica just died does not
        return not outcome.headers.get("content-type", "").startswith(_PROBLEM)
    return outcome.status_code in RETRIED_STATUSES
