"""`raymeta demo`: the whole way once on a real grocery log, told through one household."""

import json
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymeta.cli.evaluate import render as render_evaluation
from raymeta.cli.output import console, emit, result_console
from raymeta.cli.train import progress
from raymeta.config.experiment import DataConfig, ExperimentConfig, TrainingConfig
from raymeta.data.episodes import cut
from raymeta.data.events import History

if TYPE_CHECKING:
    from raymeta.artifact import Artifact
    from raymeta.data.task_split import TaskSplit

STORY_VISITS = (0, 1, 2, 3)
SHOWN = 5
QUICK_BASELINES = ("popularity", "item-knn")


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the endpoint.")] = 8000,
    serve: Annotated[bool, typer.Option(help="Keep serving at the end, until Ctrl-C.")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer steps and baselines: a check, not a result.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Prepare a grocery log, meta-train, evaluate, serve, and follow one new household.

    The households are those of the Complete Journey log; nothing is downloaded.

    Example: raymeta demo --no-serve
    """
    from raymeta.artifact import load_artifact
    from raymeta.data.task_split import load_task_split
    from raymeta.serve.local import serve_artifact
    from raymeta.train.trainer import fit

    experiment = demo_experiment(quick=quick)
    data = _prepared(folder / "data")
    console.rule("2/4  Meta-training with two workers")
    with progress(experiment) as reporter:
        run = folder / ("train-quick" if quick else "train")
        result = fit(experiment, data, run, num_workers=2, reporter=reporter)
    assert result.artifact_path is not None
    artifact = load_artifact(result.artifact_path)
    console.rule("3/4  Evaluating on households that training never met")
    evaluation = _evaluated(artifact, data, folder / "report", quick=quick)
    if not as_json:
        result_console().print(render_evaluation(evaluation))
    console.rule("4/4  Serving, and one new household")
    split = load_task_split(data, artifact.experiment.data)
    user = _household(split)
    store = folder / "events.sqlite"
    with serve_artifact(artifact.path, port=port, store=store) as url:
        rows = _story(url, artifact, split.test[user], split.positive_types)
        summary = {
            "url": url,
            "household": str(split.test.user_ids[user]),
            "story": rows,
            "artifact": artifact.path,
            "report": folder / "report",
            "validation": {str(k): v for k, v in result.curve.items()},
        }
        emit(summary, as_json=as_json, render=_render)
        if serve:
            from raymeta.cli.serve import wait_for_interrupt

            console.print("Serving until Ctrl-C.")
            wait_for_interrupt()
            console.print("Stopping ...")


def demo_experiment(*, quick: bool) -> ExperimentConfig:
    """The defaults on Complete Journey; `tune_configs/experiments` has the same as a file."""
    steps = {"max_outer_steps": 10, "validate_every": 5} if quick else {}
    return ExperimentConfig(
        name="demo",
        data=DataConfig(min_item_users=30),
        training=TrainingConfig(num_workers=2, **steps),
    )


def _prepared(data: Path) -> Path:
    from raymeta.data.prepare import prepare
    from raymeta.data.sources.complete_journey import CompleteJourney

    console.rule("1/4  Preparing Complete Journey (1.5 million purchases)")
    if (data / "manifest.json").is_file():
        console.print(f"{data} is there already.")
        return data
    with console.status("Reading, cleaning, turning households into tasks"):
        prepare(CompleteJourney(), data)
    return data


def _evaluated(artifact: "Artifact", data: Path, folder: Path, *, quick: bool) -> dict[str, Any]:
    from raymeta.evaluation.fold import EvaluationSettings
    from raymeta.evaluation.report import write_report
    from raymeta.evaluation.run import evaluate_artifact, protocol_facts, run_facts
    from raymeta.evaluation.summary import summarise
    from raymeta.evaluation.tuning import BASELINES

    config = artifact.experiment.data
    settings = EvaluationSettings(
        support_sizes=config.support_sizes,
        unit=config.unit,
        repeat=False,
        baselines=tuple(b for b in BASELINES if b in QUICK_BASELINES) if quick else BASELINES,
    )
    started = datetime.now(UTC)
    with console.status("Tuning baselines and scoring") as status:
        scores = evaluate_artifact(artifact, data, settings, note=lambda text: status.update(text))
    wall_s = (datetime.now(UTC) - started).total_seconds()
    result = {
        **summarise(scores),
        "protocol": protocol_facts(config, settings, name=artifact.experiment.name, folds=1),
        "run": run_facts("raymeta demo", wall_s=wall_s, folds=scores),
    }
    write_report(result, scores, folder)
    return {**result, "report": str(folder)}


def _household(split: "TaskSplit") -> int:
    """A typical test household: the one with the median number of later items after a visit."""
    sizes = [
        len(cut(history, 1, unit="visits", positive_types=split.positive_types)[1])
        for history in split.test
    ]
    return int(np.argsort(np.array(sizes), kind="stable")[len(sizes) // 2])


def _story(
    url: str, artifact: "Artifact", history: History, positive_types: Sequence[int]
) -> list[dict[str, Any]]:
    """What the service recommends after each visit, and what of it the household bought later."""
    from raymeta.evaluation.metrics import ndcg_of_list

    titles = dict(zip(artifact.catalogue.item_ids, _titles(artifact), strict=True))
    user_id = f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    rows = []
    for visits in STORY_VISITS:
        new = history.where((history.visit == visits - 1) & (history.item >= 0))
        answer = _post(
            f"{url}/v1/recommend",
            {"user_id": user_id, "n": 10, "events": _wire(new, artifact)},
        )
        _, later = cut(history, visits, unit="visits", positive_types=positive_types)
        wanted = {artifact.catalogue.item_ids[i] for i in later}
        ids = [item["id"] for item in answer["items"]]
        rows.append(
            {
                "visits": visits,
                "n_support": answer["n_support"],
                "took_ms": answer["took_ms"],
                "ndcg_at_10": ndcg_of_list([i in wanted for i in ids], len(wanted)),
                "items": [
                    {"id": i, "title": titles[i], "bought_later": i in wanted} for i in ids[:SHOWN]
                ],
            }
        )
    return rows


def _wire(events: History, artifact: "Artifact") -> list[dict[str, Any]]:
    return [
        {
            "item_id": artifact.catalogue.item_ids[item],
            "event_type": artifact.event_types[kind],
            "timestamp": datetime.fromtimestamp(ms / 1000, UTC).isoformat(),
        }
        for item, kind, ms in zip(
            events.item.tolist(),
            events.event_type.tolist(),
            events.timestamp_ms.tolist(),
            strict=True,
        )
    ]


def _titles(artifact: "Artifact") -> list[str]:
    items = artifact.catalogue.items
    column = "title" if "title" in items.column_names else "item_id"
    return [str(title) for title in items[column].to_pylist()]


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _render(summary: dict[str, Any]) -> Group:
    table = Table(
        title=f"Household {summary['household']}: what it is recommended after each visit",
        caption="green and marked *: bought later",
        show_lines=True,
    )
    for name in ("visits", "items seen", "recommended", "nDCG@10", "ms"):
        table.add_column(name, justify="left" if name == "recommended" else "right")
    for row in summary["story"]:
        lines = Text("\n").join(
            Text(f"{'*' if i['bought_later'] else ' '} {i['title']}", _style(i))
            for i in row["items"]
        )
        table.add_row(
            str(row["visits"]),
            str(row["n_support"]),
            lines,
            f"{row['ndcg_at_10']:.3f}",
            f"{row['took_ms']:.1f}",
        )
    item = summary["story"][-1]["items"][0]["id"]
    event = {"user_id": "ann", "events": [{"item_id": item, "event_type": "purchase"}]}
    header = "-H 'Content-Type: application/json'"
    url = summary["url"]
    return Group(
        table,
        Text(
            f"Report:   {summary['report']}/report.md, curve.png", no_wrap=True, overflow="ignore"
        ),
        Text(f"Endpoint: {url}. Try, in another terminal:", no_wrap=True, overflow="ignore"),
        Text(
            f"curl -s {url}/v1/events {header} -d '{json.dumps(event)}'",
            no_wrap=True,
            overflow="ignore",
        ),
        Text(
            f"""curl -s {url}/v1/recommend {header} -d '{{"user_id": "ann", "n": 5}}'""",
            no_wrap=True,
            overflow="ignore",
        ),
        Text(f"Again:    raymeta serve {summary['artifact']}", no_wrap=True, overflow="ignore"),
    )


def _style(item: dict[str, Any]) -> str:
    return "green" if item["bought_later"] else ""
