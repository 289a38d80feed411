"""Adapted states in memory, least recently used out first. A cache: losing it loses nothing."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from raymeta.observability import metrics
from raymeta.observability.metrics import Meter
from raymeta.types import TaskState

# what a cached entry weighs beside its tensors: key, containers, tensor headers
ENTRY_OVERHEAD_BYTES = 1024


class StateKey(NamedTuple):
    """Everything that a state is a function of; the artifact stands for its own catalogue.

    Attributes:
        tenant: the shop.
        user_id: the user.
        model_version: of the artifact.
        catalogue: the version of the shop's changes that the model has.
        number: the user's state version: its events and features.
        epoch_ms: when the user became known, since a forgotten one starts its versions anew.
    """

    tenant: str
    user_id: str
    model_version: str
    catalogue: int
    number: int
    epoch_ms: int


@dataclass(frozen=True, slots=True)
class AdaptedUser:
    """One user adapted.

    Attributes:
        state: tensors `[1, ...]`.
        seen: ascending catalogue indices of the items that the user has seen.
        bought: of those with a purchase among the retained events.
        num_support: events that were adapted to.
        adapted: False where adapting failed and `state` is that of a user without events.
    """

    state: TaskState
    seen: tuple[int, ...]
    bought: tuple[int, ...]
    num_support: int
    adapted: bool = True

    def state_bytes(self) -> int:
        """Bytes of the adapted state alone: what a published figure a user means."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state.values())

    def num_bytes(self) -> int:
        """Bytes in the cache."""
        return self.state_bytes() + 8 * (len(self.seen) + len(self.bought)) + ENTRY_OVERHEAD_BYTES


def rows_by_shape(users: Sequence[AdaptedUser]) -> list[list[int]]:
    """Rows whose states can be stacked: an algorithm's state may be as wide as its support."""
    groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, user in enumerate(users):
        groups[tuple((name, value.shape) for name, value in user.state.items())].append(row)
    return list(groups.values())


class StateCache:
    """Holds at most `max_bytes` of adapted users; used from one event loop only.

    Args:
        max_bytes: what it holds at most.
        max_age_ms: an entry is of use for so long, however often it is read: what was erased
            elsewhere must not stay in memory because nothing pushes it out.
        now_ms: the clock.
        meter: counts what is found here and what is not.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_age_ms: int,
        now_ms: Callable[[], int],
        meter: Meter | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
        self._now_ms = now_ms
        self._meter = meter or Meter()
        self._entries: OrderedDict[StateKey, tuple[AdaptedUser, int]] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: StateKey) -> AdaptedUser | None:
        user = self._found(key)
        self._meter.add(metrics.STATE_LOOKUPS, "miss" if user is None else "hit")
        return user

    def _found(self, key: StateKey) -> AdaptedUser | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        user, since_ms = entry
        if since_ms < self._now_ms() - self._max_age_ms:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return user

    def put(self, key: StateKey, user: AdaptedUser) -> None:
        self._remove(key)
        self._entries[key] = (user, self._now_ms())
        self._num_bytes += user.num_bytes()
        while self._num_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def drop_user(self, tenant: str, user_id: str) -> None:
        """Forgets every state of a user, of whatever version."""
        for key in [k for k in self._entries if (k.tenant, k.user_id) == (tenant, user_id)]:
            self._remove(key)

    def drop_old(self) -> int:
        """Forgets what has outlived its age; gives how many."""
        oldest = self._now_ms() - self._max_age_ms
        old = [key for key, (_, since_ms) in self._entries.items() if since_ms < oldest]
        for key in old:
            self._remove(key)
        return len(old)

    def _remove(self, key: StateKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes -= entry[0].num_bytes()
