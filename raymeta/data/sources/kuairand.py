"""KuaiRand: impressions of a short-video feed with their labels, from a folder with its tables.

Every row is one impression, written as an `impression` and, at the same time, the `click` and the
`long_view` (most of the video watched) that came of it: what an advertiser calls a click and a
conversion. The `value` of an impression is 1 + the tab of the app that showed it, so that 0 stays
"unknown". Where a user watched before the window is left out: users here are new.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymeta.data.cleaning import CleaningRules
from raymeta.data.conversion import to_text
from raymeta.data.schema import EVENT_TYPES, FeatureKind
from raymeta.data.sources.base import FeatureTable, Log, TableUnit
from raymeta.errors import DataError

CONVERSION = "long_view"

_NOTES = (
    "KuaiRand, Gao et al., CIKM 2022, doi:10.1145/3511808.3557624, CC BY-SA 4.0.",
    "A long_view without a click (1 in 900 impressions) is kept as an event; a conversion is one "
    "that follows a click.",
    "Few impressions are of paid ads; all are counted, since clicks on both are of one kind.",
)
_FILES = ("impressions", "users", "videos")
_LABELS = {"is_click": "click", CONVERSION: CONVERSION}
_USER_COLUMNS = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
_VIDEO_COLUMNS = ("author_id", "video_type", "upload_type", "music_type")
_LENGTHS_S = (7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
"""Bounds of the groups of video lengths: clicks depend on the length, and not in a line."""


class KuaiRand:
    """The log in a folder with `impressions`, `users` and `videos` as Parquet.

    Args:
        folder: has the files.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def open(self) -> Log:
        """Reads the tables (a hundred thousand impressions, some seconds)."""
        tables = {name: self._read(name) for name in _FILES}
        impressions = tables["impressions"]
        return Log(
            name="kuairand",
            units=[_unit(impressions)],
            rules=CleaningRules(optional=("value",), event_types=(*EVENT_TYPES, CONVERSION)),
            items=_items(tables["videos"]),
            users=_users(tables["users"]),
            origin={"rows": impressions.num_rows},
            notes=_NOTES,
        )

    def _read(self, name: str) -> pa.Table:
        path = self._folder / f"{name}.parquet"
        if not path.is_file():
            raise DataError(
                f"{self._folder} holds no {name}.parquet.",
                remedy="Give the folder with impressions, users and videos of KuaiRand as Parquet.",
            )
        return pq.read_table(path).replace_schema_metadata(None)


def _unit(impressions: pa.Table) -> TableUnit:
    """A row an event: each impression, then the clicks and long views at their times."""
    line = np.arange(1, impressions.num_rows + 1)
    parts, lines = [_events(impressions, "impression")], [line]
    for column, event_type in _LABELS.items():
        came = pc.equal(impressions.column(column), 1)
        parts.append(_events(impressions.filter(came), event_type))
        lines.append(line[came.to_numpy()])
    return TableUnit("impressions.parquet", pa.concat_tables(parts), np.concatenate(lines))


def _events(rows: pa.Table, event_type: str) -> pa.Table:
    tab = pc.add(rows.column("tab").cast(pa.float64()), 1.0)
    return pa.table(
        {
            "user_id": to_text(rows.column("user_id")),
            "item_id": to_text(rows.column("video_id")),
            "event_type": pa.repeat(pa.scalar(event_type), rows.num_rows),
            "timestamp": rows.column("time_ms"),
            "value": tab if event_type == "impression" else pa.nulls(rows.num_rows, pa.float64()),
        }
    )


def _items(videos: pa.Table) -> FeatureTable:
    seconds = videos.column("video_duration").to_numpy() / 1000.0
    group = np.digitize(seconds, _LENGTHS_S).astype(str)
    tags = pc.split_pattern(pc.fill_null(videos.column("tag").cast(pa.string()), ""), ",")
    table = pa.table(
        {
            "item_id": to_text(videos.column("video_id")),
            **{name: to_text(videos.column(name)) for name in _VIDEO_COLUMNS},
            "length": pa.array(group, pa.string(), mask=np.isnan(seconds)),
            "tags": tags,
        }
    )
    kinds = dict.fromkeys((*_VIDEO_COLUMNS, "length"), FeatureKind.CATEGORICAL)
    return FeatureTable(table=table, kinds={**kinds, "tags": FeatureKind.MULTI_CATEGORICAL})


def _users(users: pa.Table) -> FeatureTable:
    columns = {name: to_text(users.column(name)) for name in _USER_COLUMNS}
    table = pa.table({"user_id": to_text(users.column("user_id")), **columns})
    return FeatureTable(table=table, kinds=dict.fromkeys(_USER_COLUMNS, FeatureKind.CATEGORICAL))
