"""Purchase intent in generated shops: known rates are approached, and no gain is found where none
can be."""

import numpy as np
import pytest

from raymeta.artifact import load_artifact
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.task_split import load_task_split
from raymeta.errors import ConfigError, DataError
from raymeta.evaluation.baselines.intents import GRIDS
from raymeta.evaluation.demand import NAIVE, cut_periods, naive_forecasts, summarise_demand
from raymeta.evaluation.fold import FoldScores
from raymeta.evaluation.intents import cut_after_visits, end_of, known_of, predicted
from raymeta.evaluation.labelled import log_losses
from raymeta.evaluation.run import evaluate_artifact, protocol_facts
from raymeta.evaluation.scenarios.table import SCENARIOS, evaluation_settings
from raymeta.train.run import train_in_process
from tests.helpers.buyers import BUYERS, write_buyers


def trained(folder, spread):
    truth = write_buyers(folder, spread=spread)
    train_in_process(BUYERS, folder, out=folder / "artifact")
    return load_artifact(folder / "artifact"), load_task_split(folder, BUYERS.data), truth


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("buyers"), 1.0)


def losses(artifact, split, truth, size):
    """Mean log loss of ours, the same unadapted, anybody's rate and the oracle."""
    test = split.test
    (cut,) = cut_after_visits(test, [size], split.view, end_ms=end_of(test))
    rows = [int(user_id[1:]) for user_id in test.user_ids[cut.user_rows[cut.user]]]
    order = [int(name[1:]) for name in split.view.intent.categories]
    oracle = truth[np.ix_(rows, order)]
    model = artifact.algorithm, artifact.meta_params
    said = {
        "adapted": predicted(*model, cut, split.view),
        "unadapted": predicted(*model, cut, split.view, adapted=False),
        "anybody": np.broadcast_to(cut.labels.mean(0), cut.labels.shape),
        "oracle": oracle,
    }
    return {name: float(log_losses(cut.labels, p).mean()) for name, p in said.items()}


def test_with_many_visits_the_known_rates_are_approached(world):
    found = losses(*world, 50)
    gain, possible = (found["anybody"] - found[name] for name in ("adapted", "oracle"))
    assert possible > 0.05
    assert gain > 0.7 * possible
    assert losses(*world, 1)["adapted"] > found["oracle"] + 0.02  # one visit cannot tell as much


def test_where_users_are_alike_nothing_is_gained(tmp_path):
    found = losses(*trained(tmp_path / "null", 0.0), 20)
    assert found["adapted"] > found["oracle"] - 0.004
    assert abs(found["adapted"] - found["unadapted"]) < 0.01


def test_it_is_scored_beside_baselines_and_reported(world, tmp_path, monkeypatch):
    monkeypatch.setitem(GRIDS, "boosting", (7,))
    monkeypatch.setitem(GRIDS, "logistic_regression", (0.1,))
    artifact, *_ = world
    settings = evaluation_settings(BUYERS)
    scores = evaluate_artifact(artifact, artifact.path.parent, settings)
    kind = SCENARIOS["intent"]
    result = {
        **kind.summarise(scores),
        "scenario": "intent",
        "protocol": protocol_facts(BUYERS.data, settings, name="buyers", folds=1),
        "run": {"command": "x", "wall_s": 1.0, "peak_memory_mb": 1.0, "versions": {}},
    }
    assert set(result["methods"]) == {"adapted", "unadapted", *kind.baselines}
    # without a decided row nothing is adapted
    first = result["methods"]["adapted"]["0"], result["methods"]["unadapted"]["0"]
    assert first[0]["purchase_intent_log_loss"] == first[1]["purchase_intent_log_loss"]
    assert set(result["demand"]["methods"]) == {*result["methods"], *NAIVE}
    demand = result["demand"]["methods"]
    assert demand["adapted"]["wape"]["mean"] < demand["last_period"]["wape"]["mean"]
    kind.write_report(result, scores, tmp_path / "report")
    page = (tmp_path / "report/report.md").read_text()
    assert "Demand by category and period" in page
    tables, lines = kind.text_tables(result)
    assert tables[0].title == "Purchase intent log loss after so many visits"
    assert any(
        line.startswith("Demand by category and period, forecast by adapted: WAPE")
        for line in lines
    )


def test_demand_errors_are_those_by_hand():
    facts = {"truth": [[2.0, 2.0], [4.0, 0.0]], "forecasts": {"adapted": [[3.0, 1.0], [4.0, 2.0]]}}
    folds = [FoldScores(None, {}, {"demand": facts}), FoldScores(None, {}, {"demand": facts})]
    found = summarise_demand(folds)["methods"]["adapted"]
    assert found["wape"]["mean"] == pytest.approx((2 + 2 + 4) / 16)
    assert found["bias"]["mean"] == pytest.approx(4 / 16)
    assert summarise_demand([FoldScores(None, {}, {})]) == {}


def test_naive_forecasts_read_earlier_periods_alone(world):
    _, split, _ = world
    periods = cut_periods(split.test, split.view)
    before = naive_forecasts(periods)
    changed = [*periods[:-1], type(periods[-1])(
        -1, periods[-1].user_rows, periods[-1].supports,
        [type(q)(q.now_ms, 1.0 - q.label) for q in periods[-1].queries],
    )]  # fmt: skip
    assert naive_forecasts(changed) == before


def test_what_is_known_at_a_date_is_what_came_before_it(world):
    _, split, _ = world
    for cut in cut_periods(split.test, split.view)[::7]:
        now = cut.queries[0].now_ms[0]
        assert cut.supports.events.timestamp_ms.max() <= now
        known = known_of(cut, split.view)
        assert (known["silent_days"] >= 0).all()
        assert (known["num_baskets"] >= 1).all()


@pytest.mark.parametrize(
    ("part", "changed", "why"),
    [
        ("model", {"name": "factorization"}, "model purchase_intent"),
        ("data", {"intent": None}, "goes with data.intent"),
        ("data", {"unit": "items"}, "needs data.unit: visits"),
        ("data", {"support_events": ["view", "purchase"]}, "positive events alone"),
    ],
)
def test_settings_that_do_not_fit_are_refused(part, changed, why):
    values = BUYERS.model_dump(mode="json")
    values[part] = changed if part == "model" else {**values[part], **changed}
    with pytest.raises(ConfigError, match=why):
        ExperimentConfig.parse(values, source="test")


def test_a_column_that_items_lack_is_named(world):
    folder = world[0].path.parent
    asked = BUYERS.data.intent.model_copy(update={"category_column": "aisle"})
    with pytest.raises(DataError, match="no column 'aisle'") as error:
        load_task_split(folder, BUYERS.data.model_copy(update={"intent": asked}))
    assert "category" in str(error.value)
