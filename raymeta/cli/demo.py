"""`raymeta demo`: the whole way once on a real grocery log, told through one household."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymeta.cli.evaluate import render as render_evaluation
from raymeta.cli.output import console, emit, result_console
from raymeta.cli.serve import wait_for_interrupt, written_households
from raymeta.cli.shoppers import UNADAPTED, render_shoppers, save_unadapted, shop
from raymeta.cli.story import STORY_VISITS, render_story, tell, typical_household
from raymeta.cli.train import progress
from raymeta.config.data import DataConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

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
    from raymeta.evaluation.fixed_target import measure_fixed_target
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
    measured = measure_fixed_target(
        artifact.algorithm,
        artifact.meta_params,
        split.test,
        STORY_VISITS,
        view=artifact.view,
        num_items=len(artifact.catalogue),
        positive_types=split.positive_types,
    )
    typical = typical_household(measured, split.test)
    store = folder / "events.sqlite"
    unadapted = save_unadapted(artifact, split, run / UNADAPTED)
    with (
        written_households(artifact.path, data if serve else None) as households,
        serve_artifact(
            artifact.path,
            port=port,
            store=store,
            households_file=households,
            beside={UNADAPTED: unadapted},
        ) as url,
    ):
        with console.status("Households shop at two variants"):
            run_id = f"household-{datetime.now(UTC):%Y%m%dT%H%M%S}"
            experiment_found = shop(url, artifact, split.test, run=run_id)
        rows = tell(url, artifact, split.test[typical], positive_types=split.positive_types)
        summary = {
            "url": url,
            "household": str(split.test.user_ids[typical]),
            "households": measured.facts(),
            "story": rows,
            "experiment": experiment_found,
            "artifact": artifact.path,
            "report": folder / "report",
            "validation": {str(k): v for k, v in result.curve.items()},
        }
        if not as_json:
            result_console().print(render_shoppers(experiment_found))
        emit(summary, as_json=as_json, render=render_story)
        if serve:
            console.print(f"Now be a new shopper yourself: open {url}/ in a browser.")
            console.print(f"What the experiment gave, and how the service does: {url}/ops")
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
    from raymeta.evaluation.run import evaluate_artifact, protocol_facts, run_facts
    from raymeta.evaluation.scenarios.table import SCENARIOS, evaluation_settings

    experiment = artifact.experiment
    kind = SCENARIOS[experiment.scenario.name]
    chosen = tuple(b for b in kind.baselines if b in QUICK_BASELINES) if quick else None
    settings = evaluation_settings(experiment, baselines=chosen)
    started = datetime.now(UTC)
    with console.status("Tuning baselines and scoring") as status:
        scores = evaluate_artifact(artifact, data, settings, note=lambda text: status.update(text))
    wall_s = (datetime.now(UTC) - started).total_seconds()
    result = {
        **kind.summarise(scores),
        "scenario": experiment.scenario.name,
        "protocol": protocol_facts(experiment.data, settings, name=experiment.name, folds=1),
        "run": run_facts("raymeta demo", wall_s=wall_s, folds=scores),
    }
    kind.write_report(result, scores, folder)
    return {**result, "report": str(folder)}
