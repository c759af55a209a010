"""`netcarve doctor`: is this machine ready?"""

from __future__ import annotations

import typer

from cli.options import ArtifactsOption, DatabaseOption, HomeOption, JsonOption
from cli.output import print_json


def doctor(
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Check this machine and installation, and say what to do about each problem."""
    from search.doctor import Status, examine

    checks = examine(home, db, artifacts)
    if json:
        print_json([check.to_json() for check in checks])
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{check.status:7}  {check.name.ljust(width)}  {check.found}")
            if check.advice:
                typer.echo(f"{'':7}  {'':{width}}  -> {check.advice}")
    if any(check.status is Status.PROBLEM for check in checks):
        raise typer.Exit(1)
