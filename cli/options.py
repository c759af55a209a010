"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from cli import completion

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        envvar="NETCARVE_DB",
        help="Database: sqlite:///FILE or postgresql://USER@HOST/NAME. "
        "Default: netcarve.db in --home.",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="URL",
        envvar="NETCARVE_ARTIFACTS",
        help="Store of supernets and subnets, any fsspec URL. Default: artifacts in --home.",
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        envvar="NETCARVE_HOME",
        help="Folder of the database, artifacts and results. Default: ./netcarve-home.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Id of a job.", autocompletion=completion.jobs),
]
JobFileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A job, YAML.")]
DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of a registered device.", autocompletion=completion.devices
    ),
]


def device_option(help: str) -> OptionInfo:
    """`--device NAME`, a registered device."""
    found: OptionInfo = typer.Option(
        "--device", metavar="NAME", help=help, autocompletion=completion.devices
    )
    return found


OneDeviceOption = Annotated[str | None, device_option("Only this device of the job.")]
SpaceOption = Annotated[
    str,
    typer.Option(
        "--space", metavar="NAME", help="Name of a space.", autocompletion=completion.spaces
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Folder of bundles, report and plot. Default: results/JOB in --home.",
    ),
]
