"""A trial's folder: what is there after any interruption."""

import json
from pathlib import Path

from raymeta.tune.records import TrialFolder, read_trials
from raymeta.tune.trial import TuneReporter


def test_best_first_with_what_ended_them(tmp_path: Path) -> None:
    for name, scores, ending in (
        ("a", [0.1, 0.3, 0.2], "finished"),
        ("b", [0.4], "stopped early"),
        ("c", [], ""),
    ):
        folder = TrialFolder(tmp_path, name)
        folder.start({"algorithm.inner_lr": 0.5})
        for step, score in enumerate(scores):
            folder.add(step * 25, score, {"loss": 1.0})
        if ending:
            folder.end(ending)
    trials = read_trials(tmp_path)
    assert [(t.trial_id, t.best_score, t.best_step, t.last_step, t.ending) for t in trials] == [
        ("b", 0.4, 0, 0, "stopped early"),
        ("a", 0.3, 25, 50, "finished"),
        ("c", None, 0, 0, ""),
    ]
    assert trials[0].values == {"algorithm.inner_lr": 0.5}


def test_a_line_cut_short_and_a_repeated_step_do_no_harm(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "a")
    folder.start({})
    folder.add(25, 0.1, {})
    with (folder.path / "history.jsonl").open("a") as file:
        file.write('{"step": 50, "sco\n')
    assert folder.add(25, 0.2, {}) == 0.2
    assert [row["score"] for row in folder.history()] == [0.2]


def test_a_resumed_trial_keeps_its_history_and_runs_again(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "a")
    folder.start({"x": 1})
    folder.add(25, 0.4, {})
    folder.end("failed")
    folder.start({"x": 1})
    assert read_trials(tmp_path)[0].ending == ""
    assert folder.add(50, 0.3, {}) == 0.4, "the best score of before still counts"


def test_the_reporter_tells_tune_what_it_noted(tmp_path: Path) -> None:
    folder, told = TrialFolder(tmp_path, "a"), []
    folder.start({})
    reporter = TuneReporter(folder, told.append)
    reporter.report(25, {"score": 0.4, "loss": 2.0, "step": 25})
    reporter.report(50, {"score": 0.3, "loss": 1.0})
    assert told == [
        {"step": 25, "score": 0.4, "best_score": 0.4},
        {"step": 50, "score": 0.3, "best_score": 0.4},
    ]
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 50, "score": 0.3, "loss": 1.0}
