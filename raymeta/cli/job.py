"""`raymeta job submit|status|logs|stop`: a verb on a Ray cluster, as if it ran here."""

import datetime
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from raymeta.cli.output import console, emit
from raymeta.jobs.server import DEFAULT_ADDRESS, JobReport, JobServer

app = typer.Typer(help="Run a verb on a Ray cluster, follow it, and end with its own exit code.")

Address = Annotated[
    str,
    typer.Option(
        help="The cluster's job server; also read from RAY_API_SERVER_ADDRESS.",
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=False,
    ),
]
JobId = Annotated[str, typer.Argument(help="The id that submit printed.", metavar="JOB_ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            help="After --: a verb and its options, or any other program.", metavar="VERB [ARGS]..."
        ),
    ],
    address: Address = DEFAULT_ADDRESS,
    submission_id: Annotated[
        str | None, typer.Option(help="The job's id; made up if not given.")
    ] = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder whose code and settings the job gets a copy of.")
    ] = Path(),
    num_cpus: Annotated[
        float, typer.Option(min=0.0, help="CPUs of the job's own process, beside its workers.")
    ] = 0.0,
    follow: Annotated[
        bool, typer.Option(help="Follow the job's output and end with its exit code.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run a verb on a cluster: its output is followed, and its exit code is returned.

    Relative paths of data and results are made absolute: the cluster must see them too.
    Ctrl-C leaves the job running.

    Example: raymeta job submit -- train shop.yaml --data runs/shop --out runs/shop/model
    """
    from raymeta.cli.main import VERBS
    from raymeta.jobs.entrypoint import entrypoint
    from raymeta.jobs.working_dir import stage

    command = entrypoint(words, verbs=VERBS, cwd=Path.cwd())
    with tempfile.TemporaryDirectory(prefix="raymeta-job-") as folder:
        staged = stage(working_dir, Path(folder))
        server = JobServer(address)
        job_id = server.submit(
            command, working_dir=Path(folder), submission_id=submission_id, num_cpus=num_cpus
        )
    megabytes = staged.num_bytes / (1 << 20)
    console.print(f"Job {job_id}: {command}", soft_wrap=True)
    console.print(f"Sent {staged.num_files} files ({megabytes:.1f} MB) to {server.address}.")
    if not follow:
        emit({"job_id": job_id, "address": server.address}, as_json=as_json, render=_how_to_follow)
        return
    _follow(server, job_id, as_json=as_json)


@app.command()
def status(job_id: JobId, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Say how a job stands.

    Example: raymeta job status raymeta-5f0c2a91d3
    """
    emit(_as_dict(JobServer(address).report(job_id)), as_json=as_json, render=_render)


@app.command()
def logs(
    job_id: JobId,
    address: Address = DEFAULT_ADDRESS,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends, as submit does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a job has written; with --follow, end with its exit code.

    Example: raymeta job logs raymeta-5f0c2a91d3 --follow
    """
    server = JobServer(address)
    if follow:
        _follow(server, job_id, as_json=as_json)
        return
    text = server.logs(job_id)
    emit({"job_id": job_id, "logs": text}, as_json=as_json, render=lambda _: text.rstrip("\n"))


@app.command()
def stop(job_id: JobId, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """End a job, and wait until it has ended.

    Example: raymeta job stop raymeta-5f0c2a91d3
    """
    emit(_as_dict(JobServer(address).stop(job_id)), as_json=as_json, render=_render)


def _follow(server: JobServer, job_id: str, *, as_json: bool) -> None:
    """Passes the job's output on, to stderr where stdout is for JSON, and exits as the job did."""
    out = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        out.write(text)
        out.flush()

    try:
        report = server.follow(job_id, write)
    except KeyboardInterrupt:
        console.print(f"\nThe job goes on. {_how_to_follow({'job_id': job_id})}")
        raise
    if as_json:
        emit(_as_dict(report), as_json=True, render=_render)
    else:
        console.print(_render(_as_dict(report)), soft_wrap=True)
    raise typer.Exit(report.exit_code or 0)


def _as_dict(report: JobReport) -> dict[str, Any]:
    seconds = None
    if report.started_ts_ms is not None and report.ended_ts_ms is not None:
        seconds = (report.ended_ts_ms - report.started_ts_ms) / 1000
    return {
        "job_id": report.job_id,
        "status": report.status,
        "exit_code": report.exit_code,
        "message": report.message,
        "entrypoint": report.entrypoint,
        "started": _time(report.started_ts_ms),
        "ended": _time(report.ended_ts_ms),
        "seconds": seconds,
    }


def _time(ts_ms: int | None) -> str | None:
    if ts_ms is None:
        return None
    return datetime.datetime.fromtimestamp(ts_ms / 1000, tz=datetime.UTC).isoformat("T", "seconds")


def _render(job: dict[str, Any]) -> str:
    ended = "" if job["exit_code"] is None else f", exit code {job['exit_code']}"
    took = "" if job["seconds"] is None else f", {job['seconds']:.0f} s"
    return f"Job {job['job_id']}: {job['status']}{ended}{took}."


def _how_to_follow(job: dict[str, Any]) -> str:
    return (
        f"Follow it: raymeta job logs {job['job_id']} --follow   "
        f"Stop it: raymeta job stop {job['job_id']}"
    )
