"""A small feed in the files of KuaiRand, whose users differ in how much, and what, they click."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.config.algorithms import AnilConfig
from raymeta.config.data import DataConfig, FeedbackConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import CtrConfig
from raymeta.config.scenario import AdsConfig
from raymeta.data.prepare import prepare
from raymeta.data.sources.kuairand import KuaiRand

NUM_USERS, NUM_VIDEOS, NUM_SHOWN, NUM_AUTHORS = 80, 12, 14, 2

FEED = ExperimentConfig(
    name="feed",
    scenario=AdsConfig(),
    data=DataConfig(
        unit="impressions",
        positive_events=("impression",),
        support_events=("impression", "click", "long_view"),
        feedback=FeedbackConfig(conversion="long_view"),
        min_item_users=1,
        min_units=2,
        user_features=True,
        support_sizes=(0, 3, 6),
    ),
    model=CtrConfig(embedding_dim=4, hidden_dim=4),
    algorithm=AnilConfig(inner_lr=0.5, num_inner_steps=2),
    training=TrainingConfig(tasks_per_batch=16, max_outer_steps=6, validate_every=3),
)


Rate = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""How often users `[N]` click on videos `[N]`; video n is by author n % NUM_AUTHORS."""


def write_feed(
    folder: Path,
    *,
    rate: Rate | None = None,
    num_users: int = NUM_USERS,
    num_videos: int = NUM_VIDEOS,
    num_shown: int = NUM_SHOWN,
) -> Path:
    """Writes the tables, prepares them into `folder/data`, and returns that.

    Without `rate`, users differ in how much they click on every other video, authors do not matter.
    """
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    user = np.repeat(np.arange(num_users), num_shown)
    video = generator.integers(0, num_videos, len(user))
    likes = generator.uniform(0.1, 0.9, num_users)[user]
    rates = np.where(video % 2 == user % 2, likes, 0.1) if rate is None else rate(user, video)
    click = generator.uniform(size=len(user)) < rates
    long_view = click & (generator.uniform(size=len(user)) < 0.7)
    impressions = {
        "user_id": user,
        "video_id": video,
        "time_ms": 1_650_000_000_000 + generator.integers(0, 10**8, len(user)),
        "is_click": click.astype(np.int8),
        "long_view": long_view.astype(np.int8),
        "tab": generator.integers(0, 2, len(user)),
    }
    pq.write_table(pa.table(impressions), folder / "impressions.parquet")
    names = ("user_active_degree", "is_live_streamer", "is_video_author")
    ranges = [f"{kind}_user_num_range" for kind in ("follow", "fans", "friend")]
    columns = [*names, *ranges, "register_days_range", *(f"onehot_feat{n}" for n in range(18))]
    users = {name: generator.integers(0, 3, num_users) for name in columns}
    pq.write_table(pa.table({"user_id": np.arange(num_users), **users}), folder / "users.parquet")
    videos = {
        "video_id": np.arange(num_videos),
        "author_id": np.arange(num_videos) % NUM_AUTHORS,
        "video_type": ["NORMAL", "AD"] * (num_videos // 2),
        "upload_type": ["a"] * num_videos,
        "music_type": np.ones(num_videos),
        "video_duration": np.linspace(5e3, 9e4, num_videos),
        "tag": ["1,2" if n % 2 else "3" for n in range(num_videos)],
    }
    pq.write_table(pa.table(videos), folder / "videos.parquet")
    return prepare(KuaiRand(folder), folder / "data").path
