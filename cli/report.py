"""`netcarve report`: what a job has found, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DatabaseOption, HomeOption, JobArgument, JsonOption
from cli.output import print_json


def report(
    job: JobArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Write report.md, report.json and front.png there instead of printing.",
        ),
    ] = None,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Report a job: fronts, predicted against measured, configs, seeds and timings."""
    from search.report import job_report, write_report
    from search.workspace import open_store

    with open_store(home, db) as store:
        if output is not None:
            written = write_report(store, job, output)
            typer.echo(f"report: {written}", err=json)
            if not json:
                return
        found = job_report(store, job)
    if json:
        print_json(found.to_json())
    else:
        typer.echo(found.to_markdown())
