"""Clicks and conversions: where an item and a user begin, by hand, and what a new item gets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raymeta.algorithms.presets import anil
from raymeta.artifact import load_artifact
from raymeta.data.events import History, support_from_events
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.labelled import cut_users, log_losses
from raymeta.evaluation.labelled import predicted as predicted_of
from raymeta.models.ctr import NUM_KNOWN, Ctr, ItemCounts
from raymeta.models.embeddings import FieldEmbedding
from raymeta.train.run import train_in_process
from tests.helpers.feeds import FEED, NUM_AUTHORS, write_feed

COUNTS = torch.tensor([[0.0, 0.0, 0.0], [10.0, 4.0, 1.0], [30.0, 6.0, 3.0]])
"""A new item, and two that were shown: 40 impressions, 10 clicks, 4 conversions."""


def model() -> Ctr:
    items = ItemCounts(
        index=torch.tensor([[1], [1], [2]]),
        weight=torch.ones(3, 1),
        counts=COUNTS,
        slots=torch.tensor([0.0, 40.0]),
    )
    embedding = FieldEmbedding(num_rows=3, field_of_slot=(0,), width=2)
    nobody = FieldEmbedding(num_rows=0, field_of_slot=(), width=2)
    return Ctr(items, item_embedding=embedding, user_embedding=nobody, hidden_width=3)


def support(*rows: tuple[int, int, int], width: int = 4) -> dict[str, torch.Tensor]:
    """Of (item, click, conversion), for one user."""
    padded = torch.zeros(3, width, dtype=torch.long)
    padded[:, : len(rows)] = torch.tensor(rows, dtype=torch.long).reshape(-1, 3).T
    item, click, conversion = padded
    mask = torch.arange(width) < len(rows)
    return {
        "item": item,
        "value": torch.ones(width),
        "click": click.float(),
        "conversion": conversion.float(),
        "mask": mask,
    }


def one(examples: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value[None] for name, value in examples.items()}


def predicted(ctr: Ctr, params: dict[str, torch.Tensor], item: list[int]) -> torch.Tensor:
    rows = {"item": torch.tensor(item), "value": torch.ones(len(item))}
    return ctr.predict(params, ctr.shared(params), rows)


def test_an_item_begins_with_the_rate_of_its_features_and_moves_to_its_own() -> None:
    ctr = model()
    params = ctr.init(torch.Generator().manual_seed(0))
    rate = (10 + 1) / (40 + 2)
    assert predicted(ctr, params, [0])[0, 0] == pytest.approx(rate, abs=1e-6)
    embedded = params["item_embedding"][1]
    wanted = 0.7  # in log odds above all items, for items of the first value
    params["prior_generated"] = torch.stack([wanted * embedded / embedded.square().sum()] * 2, 1)
    generated = torch.sigmoid(torch.logit(torch.tensor(rate)) + wanted)
    smoothing = params["log_prior_impressions"][0].exp()
    found = predicted(ctr, params, [0, 1])[:, 0]
    assert found[0] == pytest.approx(float(generated), abs=1e-6)
    own = (4 + smoothing * generated) / (10 + smoothing)
    assert found[1] == pytest.approx(float(own), abs=1e-6)


def test_nothing_is_known_of_an_empty_support_and_clicks_raise_where_a_user_begins() -> None:
    ctr = model()
    params = ctr.init(torch.Generator().manual_seed(0))
    params["head_known"] = torch.ones(NUM_KNOWN, 2)
    begins = {
        name: ctr.given(params, rows)["head_bias"][0].item()
        for name, rows in (
            ("nothing", support()),
            ("click", support((1, 1, 0), (2, 1, 0))),
            ("none", support((1, 0, 0), (2, 0, 0))),
        )
    }
    assert begins["nothing"] == pytest.approx(0.0, abs=1e-6)
    assert begins["click"] > begins["none"]


def test_padding_and_order_of_the_support_change_nothing() -> None:
    ctr = model()
    learner = anil(ctr, inner_lr=0.3, num_inner_steps=2)
    params = learner.init(torch.Generator().manual_seed(0))
    params["head_known"] = torch.ones(NUM_KNOWN, 2)
    rows = [(1, 1, 0), (2, 1, 1), (1, 0, 0)]
    states = [
        learner.adapt(params, one(examples))
        for examples in (support(*rows), support(*rows, width=8), support(*rows[::-1]))
    ]
    for name, value in states[0].items():
        for other in states[1:]:
            torch.testing.assert_close(other[name], value)


def test_an_item_that_training_never_saw_is_clicked_like_those_of_its_author(
    tmp_path: Path,
) -> None:
    rates = np.array([0.15, 0.75])
    rate_of = lambda _, video: rates[video % NUM_AUTHORS]  # noqa: E731
    data = write_feed(tmp_path / "feed", rate=rate_of, num_videos=80)
    training = FEED.training.model_copy(
        update={"max_outer_steps": 60, "outer_lr": 0.02, "validate_every": 10}
    )
    shop = FEED.data.model_copy(update={"user_features": False})
    experiment = FEED.model_copy(update={"training": training, "data": shop})
    train_in_process(experiment, data, out=tmp_path / "made")
    artifact = load_artifact(tmp_path / "made")
    known = artifact.catalogue.items
    authors = known["author_id"].to_pylist()
    like = known.take([authors.index("0"), authors.index("1")])
    new = like.set_column(0, known.schema.field(0), pa.array(["new a", "new b"]))
    extended = artifact.with_items(new)
    index = [extended.catalogue.index_of[name] for name in ("new a", "new b")]
    nobody = extended.algorithm.adapt(
        extended.meta_params, support_from_events([History.empty(None)], extended.view)
    )
    rows = one({"item": torch.tensor(index), "value": torch.ones(2)})
    found = extended.algorithm.predict(extended.meta_params, nobody, rows)[0, :, 0]
    assert found.numpy() == pytest.approx(rates, abs=0.15)


def losses(data: Path, bayes: Callable[[float, int], float]) -> dict[int, tuple[float, ...]]:
    """Click log loss of test users by size: the best that can be, adapted, unadapted."""
    experiment = FEED.model_copy(
        update={
            "data": FEED.data.model_copy(update={"user_features": False}),
            "training": FEED.training.model_copy(
                update={"tasks_per_batch": 64, "max_outer_steps": 150, "outer_lr": 0.01}
            ),
        }
    )
    train_in_process(experiment, data, out=data.parent / "made")
    artifact = load_artifact(data.parent / "made")
    split = load_task_split(data, experiment.data)
    types = artifact.view.feedback
    assert types is not None
    found = {}
    for cut in cut_users(split.test, experiment.data.support_sizes, artifact.view):
        labels = cut.rows()[["click", "conversion"]].to_numpy()
        clicks = [float((h.event_type == types.click).sum()) for h in cut.supports]
        best = np.repeat([bayes(c, cut.size) for c in clicks], [len(q) for q in cut.queries])
        ways = [np.stack([best, best], 1)]
        for adapted in (True, False):
            p = predicted_of(
                artifact.algorithm, artifact.meta_params, cut, artifact.view, adapted=adapted
            )
            ways.append(p)
        found[cut.size] = tuple(float(log_losses(labels, p)[:, 0].mean()) for p in ways)
    return found


@pytest.mark.slow
def test_users_who_click_more_or_less_are_told_as_well_as_can_be(tmp_path: Path) -> None:
    likes = np.random.default_rng(1).beta(1.0, 1.5, 1500)
    data = write_feed(tmp_path, rate=lambda user, _: likes[user], num_users=1500)
    found = losses(data, lambda clicks, size: (clicks + 1.0) / (size + 2.5))
    for size, (best, adapted, unadapted) in found.items():
        assert adapted < best + 0.012
        assert size == 0 or adapted < unadapted - 0.05


@pytest.mark.slow
def test_where_users_are_alike_there_is_nothing_to_gain(tmp_path: Path) -> None:
    data = write_feed(tmp_path, rate=lambda user, _: np.full(len(user), 0.4), num_users=1500)
    for best, adapted, unadapted in losses(data, lambda _clicks, _size: 0.4).values():
        assert best - 0.003 < adapted < best + 0.006  # below the entropy only by chance: no leak
        assert abs(adapted - unadapted) < 0.006
