"""A model with a Transformer in it is served as it is evaluated."""

from pathlib import Path

import pytest
import torch

from raymeta.artifact import load_artifact
from raymeta.data.events import support_from_events
from raymeta.serve.histories import HistoryReader
from raymeta.serve.models import Maker
from raymeta.train.run import train_in_process
from tests.helpers.shops import write_grouped_shop
from tests.unit.serve.test_recommender import rank_all, record
from tests.unit.test_pretraining import experiment


def test_served_scores_are_those_of_adapt_and_score(tmp_path: Path, maker: Maker) -> None:
    shop = write_grouped_shop(tmp_path / "shop")
    train_in_process(experiment(steps=10), shop, out=tmp_path / "artifact")
    artifact = load_artifact(tmp_path / "artifact")
    recommender = maker.recommender(artifact, {}, version=0)
    users = [record("i001", "i002", "i003"), record("i011"), record()]
    reader = HistoryReader(artifact)
    for user, ranking in zip(users, rank_all(recommender, users, exclude_seen=False), strict=True):
        support = support_from_events([reader(user)], artifact.view)
        state = artifact.algorithm.adapt(artifact.meta_params, support)
        scores = artifact.algorithm.score(artifact.meta_params, state)[0]
        values, indices = torch.topk(scores, 3)
        ids = artifact.catalogue.item_ids
        assert [item.item_id for item in ranking.items] == [ids[i] for i in indices.tolist()]
        found = [item.score for item in ranking.items]
        assert found == pytest.approx(values.tolist(), abs=1e-5)
