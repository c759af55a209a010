"""`netcarve search`: jobs from their YAML to bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion
from cli.front import print_front
from cli.options import (
    ArtifactsOption,
    DatabaseOption,
    HomeOption,
    JobArgument,
    JobFileArgument,
    JsonOption,
    OneDeviceOption,
    OutputOption,
    QuietOption,
)
from cli.output import print_json, print_pairs, print_table, timestamp
from cli.progress import duration, progress

if TYPE_CHECKING:
    from search.delivery import Delivery

search = typer.Typer(
    name="search",
    no_args_is_help=True,
    help="Searches: run, list, show, resume, pareto, export.",
)


@search.command()
def run(
    file: JobFileArgument,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="JOB",
            help="Answer with what JOB found instead of training and measuring.",
            autocompletion=completion.jobs,
        ),
    ] = None,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    output: OutputOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the job in FILE; run the same command again to continue an interrupted one."""
    from search.job import load_job

    settings = load_job(file)
    from search import delivery
    from search.workspace import open_workspace

    with open_workspace(home, db, artifacts) as work, progress(quiet) as report:
        done = delivery.run(settings, work.store, work.artifacts, work.home, output, report, replay)
    _print_delivery(done, json)


@search.command()
def resume(
    job: JobArgument,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    output: OutputOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Continue JOB to its end; its file is not needed."""
    from search import delivery
    from search.workspace import open_workspace

    with open_workspace(home, db, artifacts) as work, progress(quiet) as report:
        done = delivery.resume(job, work.store, work.artifacts, work.home, output, report)
    _print_delivery(done, json)


@search.command("list")
def list_(db: DatabaseOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the jobs, oldest first."""
    from search.summary import list_jobs
    from search.workspace import open_store

    with open_store(home, db) as store:
        jobs = list_jobs(store)
    if json:
        print_json([job.to_json() for job in jobs])
        return
    rows = [
        (job.id, job.state, job.space, ", ".join(job.devices), timestamp(job.created))
        for job in jobs
    ]
    header = ("job", "state", "space", "devices", "created")
    print_table(header, rows, "No jobs. Run one: netcarve search run FILE")


@search.command()
def show(
    job: JobArgument,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show where JOB stands: state, evaluations, measurements, bundles, time spent."""
    from search.summary import show_job
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = show_job(store, job)
    if json:
        print_json(found.to_json())
        return
    summary = found.summary
    measured = ", ".join(f"{count} on {name}" for name, count in found.measurements.items())
    pairs = [
        ("job", summary.id),
        ("state", summary.state),
        ("space", summary.space),
        ("seed", str(summary.seed)),
        ("created", timestamp(summary.created)),
        ("updated", timestamp(summary.updated)),
        ("evaluations", str(found.evaluations)),
        ("measurements", measured),
        *((f"time: {phase}", duration(seconds)) for phase, seconds in found.seconds.items()),
        *((f"bundle: {d}", path) for d, paths in found.bundles.items() for path in paths.values()),
    ]
    if summary.error is not None:
        pairs.append(("error", summary.error))
    print_pairs(pairs)


@search.command()
def pareto(
    job: JobArgument,
    device: OneDeviceOption = None,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Print JOB's Pareto front for each device, fastest first; also while it runs."""
    from search.summary import fronts
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = fronts(store, job, device)
    if json:
        print_json({name: [m.to_json() for m in front] for name, front in found.items()})
        return
    for name, front in found.items():
        print_front(name, front)


@search.command()
def export(
    job: JobArgument,
    device: OneDeviceOption = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="KEY",
            help="Only this verified config, on the front or not; may be given several times.",
        ),
    ] = None,
    output: OutputOption = None,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write bundles of JOB's front: compiled library, weights, ONNX, manifest."""
    from search import delivery
    from search.workspace import open_workspace

    with open_workspace(home, db, artifacts) as work, progress(quiet) as report:
        bundles = delivery.export(
            job, work.store, work.artifacts, work.home, output, report, device, config
        )
    if json:
        print_json(list(map(str, bundles)))
        return
    for folder in bundles:
        typer.echo(folder)


def _print_delivery(done: Delivery, json: bool) -> None:
    if json:
        print_json(done.to_json())
        return
    for one in done.devices:
        print_front(one.name, one.front)
    print_pairs(
        [
            ("job", done.job),
            *(("bundle", str(folder)) for one in done.devices for folder in one.bundles),
            ("report", str(done.report)),
            ("plot", str(done.plot)),
        ]
    )
