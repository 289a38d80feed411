"""Adapted states in memory, least recently used out first. A cache: losing it loses nothing."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from raymeta.types import TaskState

# what a cached entry weighs beside its tensors: key, containers, tensor headers
ENTRY_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class AdaptedUser:
    """One user adapted.

    Attributes:
        state: tensors `[1, ...]`.
        seen: ascending catalogue indices of the items that the user has seen.
        num_support: events that were adapted to.
        adapted: False where adapting failed and `state` is that of a user without events.
    """

    state: TaskState
    seen: tuple[int, ...]
    num_support: int
    adapted: bool = True

    def num_bytes(self) -> int:
        tensors = sum(tensor.numel() * tensor.element_size() for tensor in self.state.values())
        return tensors + 8 * len(self.seen) + ENTRY_OVERHEAD_BYTES


class StateCache:
    """Holds at most `max_bytes` of adapted users; used from one event loop only."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, AdaptedUser] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> AdaptedUser | None:
        user = self._entries.get(key)
        if user is not None:
            self._entries.move_to_end(key)
        return user

    def put(self, key: Hashable, user: AdaptedUser) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._num_bytes -= old.num_bytes()
        self._entries[key] = user
        self._num_bytes += user.num_bytes()
        while self._num_bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._num_bytes -= dropped.num_bytes()
