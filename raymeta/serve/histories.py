"""From a user's record, in the shop's ids, to a history in the index space of an artifact."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.places import UNKNOWN
from raymeta.serve.user_events.base import StoredEvent, UserRecord

if TYPE_CHECKING:
    from raymeta.artifact import Artifact
    from raymeta.data.features import FeatureRow


class HistoryReader:
    """Reads records for one artifact.

    Args:
        artifact: whose items, event types and view they are read for.
    """

    def __init__(self, artifact: "Artifact") -> None:
        self._index_of = artifact.catalogue.index_of
        type_index = {name: index for index, name in enumerate(artifact.event_types)}
        self._counted = {n: i for n, i in type_index.items() if i in artifact.view.event_types}
        self._max_events = artifact.view.max_events
        self._min_value = artifact.view.min_value
        self._user_vocab = artifact.user_vocab
        self._place_of = {name: index for index, name in enumerate(artifact.view.places)}

    def __call__(self, record: UserRecord) -> History:
        """The events of a record that `support_from_events` uses, and the user's features."""
        events = self._last_that_count(record.events)
        return History(
            item=np.array([self._index_of[e.item_id or ""] for e in events], np.int64),
            event_type=np.array([self._counted[e.event_type] for e in events], np.int64),
            timestamp_ms=np.array([e.timestamp_ms for e in events], np.int64),
            value=np.array([np.nan if e.value is None else e.value for e in events], np.float32),
            visit=np.full(len(events), -1, np.int64),
            features=self._features(record),
            **self._places(events),
        )

    def _places(self, events: Sequence[StoredEvent]) -> dict[str, NDArray[np.int64]]:
        """Of a model that knows places; another is spared the work."""
        if not self._place_of:
            return {}
        places = [self._place_of.get(e.place, UNKNOWN) if e.place else UNKNOWN for e in events]
        return {"place": np.array(places, np.int64)}

    def _last_that_count(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Of a long record its end alone: as many events as the view has, and all those of the
        time of the first of them, since ids order them otherwise than indices do."""
        found: list[StoredEvent] = []
        # written out: of a long record this runs hundreds of times a request
        known, counted, max_events = self._index_of, self._counted, self._max_events
        for event in reversed(events):
            if len(found) >= max_events and event.timestamp_ms < found[-1].timestamp_ms:
                break
            if event.event_type in counted and event.item_id in known and self._is_enough(event):
                found.append(event)
        return found[::-1]

    def _is_enough(self, event: StoredEvent) -> bool:
        if self._min_value is None or event.value is None:
            return True
        return bool(np.float32(event.value) >= self._min_value)  # as the tables hold it

    def _features(self, record: UserRecord) -> "FeatureRow | None":
        vocab = self._user_vocab
        if vocab is None or not record.features:
            return None
        reads = {field.column for field in vocab.fields}
        known = {name: value for name, value in record.features.items() if name in reads}
        return vocab.encode(vocab.table([known]))[0]
