"""Several scenarios of one run: its tasks have the queries of all, its report a section for each.

What a scenario measures, and its report, are its own; here they are put side by side, with what the
same model gives when it is trained for that scenario alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.scenario import SingleScenario
from raymeta.data.events import History
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.fold import ALONE, OURS, EvaluationSettings, FoldScores
from raymeta.evaluation.report import RESULTS, replacing
from raymeta.evaluation.scenarios.base import (
    Measure,
    Note,
    Scenario,
    ScenarioKind,
    Summary,
    Sums,
    TextTable,
)
from raymeta.models.multi_task import joined_queries
from raymeta.types import Params, TaskBatch

_SCENARIO = "scenario"
Kinds = Mapping[str, ScenarioKind]


class Several:
    """The scenarios of an experiment over one split.

    Args:
        scenarios: by name, each opened as if it were alone.
        settings_of: scenario -> what is measured there, of what is measured in all.
    """

    def __init__(
        self,
        scenarios: Mapping[str, Scenario],
        settings_of: Callable[[str, EvaluationSettings], EvaluationSettings],
    ) -> None:
        self._scenarios, self._settings_of = scenarios, settings_of

    def num_units(self, history: History) -> int:
        return min(one.num_units(history) for one in self._scenarios.values())

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        """One support for all: each scenario cuts a history after the same events."""
        batches = {n: one.task_batch(histories, sizes) for n, one in self._scenarios.items()}
        support = next(iter(batches.values())).support
        return TaskBatch(support, joined_queries({n: batch.query for n, batch in batches.items()}))

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        """The mean over all that is judged in any scenario."""
        measures = [one.validation(users, sizes) for one in self._scenarios.values()]

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            found: dict[int, Sums] = {}
            for one in measures:
                for size, sums in one(algorithm, params).items():
                    before = found.get(size, Sums(0.0, 0.0))
                    found[size] = Sums(before.total + sums.total, before.weight + sums.weight)
            return found

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        return joined_scores(
            {
                name: one.score_adapted(algorithm, meta_params, self._settings_of(name, settings))
                for name, one in self._scenarios.items()
            }
        )

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        found = {}
        for name, one in self._scenarios.items():
            own = self._settings_of(name, settings)
            found[name] = one.score_baselines(own, note=note)
            found[name].facts["repeat"] = own.repeat
        return joined_scores(found)


def settings_of(
    settings: EvaluationSettings, scenario: SingleScenario, kinds: Kinds
) -> EvaluationSettings:
    """What is measured in one of several scenarios."""
    known = kinds[scenario.name].baselines
    return replace(
        settings,
        repeat=settings.repeat or getattr(scenario, "repeat", False),
        baselines=tuple(name for name in settings.baselines if name in known),
    )


def joined_scores(by_scenario: Mapping[str, FoldScores]) -> FoldScores:
    """The scores of several scenarios as one: a column says which, and so do the keys of facts."""
    tables = [part.table.assign(**{_SCENARIO: name}) for name, part in by_scenario.items()]
    return FoldScores(
        pd.concat(tables, ignore_index=True),
        {f"{n}/{key}": of for n, part in by_scenario.items() for key, of in part.coverage.items()},
        {f"{n}/{key}": of for n, part in by_scenario.items() for key, of in part.facts.items()},
    )


def scores_of(scenario: str, scores: FoldScores) -> FoldScores:
    """What `joined_scores` joined; facts without a scenario are of all of them."""
    table = scores.table[scores.table[_SCENARIO] == scenario]
    prefix = f"{scenario}/"

    def own(of: Mapping[str, Any]) -> dict[str, Any]:
        return {n.removeprefix(prefix): v for n, v in of.items() if n.startswith(prefix)}

    facts = own(scores.facts)
    if facts:
        facts |= {name: value for name, value in scores.facts.items() if "/" not in name}
    return FoldScores(
        table.drop(columns=_SCENARIO).dropna(axis=1, how="all"), own(scores.coverage), facts
    )


def scores_alone(scenario: str, scores: FoldScores) -> FoldScores:
    """Scores of a model that was trained for one scenario, to stand beside ours there."""
    table = scores.table[scores.table["method"] == OURS].assign(method=ALONE)
    coverage = {ALONE: scores.coverage[OURS]} if OURS in scores.coverage else {}
    facts = {name: value for name, value in scores.facts.items() if name == "peak_memory_mb"}
    return replace(joined_scores({scenario: FoldScores(table, coverage)}), facts=facts)


def several(kinds: Kinds) -> ScenarioKind:
    """The kind made of others."""

    def opened(experiment: ExperimentConfig, split: TaskSplit) -> Several:
        configs: dict[str, SingleScenario] = {one.name: one for one in experiment.scenarios}
        return Several(
            {
                alone.scenario.name: kinds[alone.scenario.name].open(alone, split)
                for alone in experiment.alone()
            },
            lambda name, settings: settings_of(settings, configs[name], kinds),
        )

    def summarise(scores: Sequence[FoldScores]) -> Summary:
        names = dict.fromkeys(name for part in scores for name in part.table[_SCENARIO].unique())
        return {"sections": {name: kinds[name].summarise(_parts(name, scores)) for name in names}}

    def write_report(result: Summary, scores: Sequence[FoldScores], folder: Path) -> None:
        sections = _sections(result)
        with replacing(folder) as partial:
            for name, section in sections.items():
                kinds[name].write_report(section, _parts(name, scores), folder / name)
            text = json.dumps({**result, "sections": sections}, indent=1, ensure_ascii=False)
            (partial / RESULTS).write_text(text + "\n", encoding="utf-8")

    def text_tables(result: Summary) -> tuple[list[TextTable], list[str]]:
        tables: list[TextTable] = []
        lines: list[str] = []
        for name, section in _sections(result).items():
            shown, said = kinds[name].text_tables(section)
            tables += [replace(table, title=f"{name}: {table.title}") for table in shown]
            lines += [f"{name}: {line}" for line in said]
        return tables, lines

    baselines = tuple(dict.fromkeys(name for kind in kinds.values() for name in kind.baselines))
    return ScenarioKind(opened, baselines, summarise, write_report, text_tables)


def _parts(name: str, scores: Sequence[FoldScores]) -> list[FoldScores]:
    parts = [scores_of(name, part) for part in scores]
    return [part for part in parts if len(part.table)]


def _sections(result: Summary) -> dict[str, Summary]:
    """Each scenario's result as a run of it alone would have it."""
    return {name: _section(name, result) for name in result["sections"]}


def _section(name: str, result: Summary) -> Summary:
    section = result["sections"][name]
    repeat = any(facts.get("repeat", False) for facts in section["folds"])
    protocol = {**result["protocol"], "repeat": repeat}
    return {**section, "scenario": name, "protocol": protocol, "run": result["run"]}
