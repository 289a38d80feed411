"""How often a caller may ask, and how many events a user may have: token buckets in memory.

Each replica counts its own share of the rate that the settings give for the service, so the sum
holds whatever the routing; a caller whose requests all reach one replica gets that replica's share.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import islice

from raymeta.errors import RateLimitError

MAX_BUCKETS = 100_000
"""Names remembered; the longest unused go first, whose buckets are full again anyway."""


class RateLimit:
    """So many a second for each name, and `burst_s` seconds' worth at once.

    Args:
        what: what is limited, for the refusal: `"requests of this key"`.
        per_s: tokens a second; None for no limit.
        burst_s: how many seconds' tokens a bucket holds, at least one token.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        what: str,
        *,
        per_s: float | None,
        burst_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._per_s = per_s
        self._capacity = 0.0 if per_s is None else max(1.0, per_s * burst_s)
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, name: Hashable, count: int = 1) -> None:
        """Takes `count` tokens of a name's bucket, all or none.

        A count that no bucket holds is taken from a full one, and what lacks is owed.

        Raises:
            RateLimitError: there are not enough; it says when there will be.
        """
        if self._per_s is None:
            return
        now = self._clock()
        tokens, since = self._buckets.pop(name, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._per_s)
        wanted = min(float(count), self._capacity)
        if tokens < wanted:
            self._buckets[name] = (tokens, now)
            raise RateLimitError(
                f"There were too many {self._what}: {self._per_s:g} a second are allowed here.",
                remedy="Wait as Retry-After says.",
                retry_after_s=(wanted - tokens) / self._per_s,
            )
        self._buckets[name] = (tokens - count, now)
        self._forget_full(now, self._per_s)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

    def __len__(self) -> int:
        """Names remembered."""
        return len(self._buckets)

    def _forget_full(self, now: float, per_s: float) -> None:
        """Of the longest unused two that are full again, which are as good as none: otherwise each
        user that ever came would be remembered."""
        for name in list(islice(self._buckets, 2)):
            tokens, since = self._buckets[name]
            if tokens + (now - since) * per_s < self._capacity:
                return
            del self._buckets[name]
