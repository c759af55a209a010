"""`netcarve latency`: tables of what devices took for the configs of a space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli.options import DatabaseOption, HomeOption, JsonOption, QuietOption
from cli.output import print_json, print_table
from cli.progress import progress

latency = typer.Typer(
    name="latency",
    no_args_is_help=True,
    help="Latency tables: list, export, import; eval: how well an unseen device is predicted.",
)


@latency.command("list")
def list_(db: DatabaseOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the latency tables and their devices."""
    from search.latency_tables import list_tables
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = list_tables(store)
    if json:
        print_json([table.to_json() for table in found])
        return
    rows = [
        (
            table.name,
            table.space or "",
            str(table.configs),
            count.device.name,
            count.device.family,
            str(count.latencies),
            str(count.repeats),
            str(count.failures),
            count.device.source.value,
            count.device.hardware,
        )
        for table in found
        for count in table.devices
    ]
    header = (
        "table", "space", "configs", "device", "family", "latencies", "repeats", "failed",
        "source", "hardware",
    )  # fmt: skip
    empty = "No latency tables. Measure one: netcarve device pool build --space NAME"
    print_table(header, rows, empty)


@latency.command()
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of a latency table.", autocompletion=completion.tables
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Receives the table, Parquet.")],
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Write a latency table to a Parquet file."""
    from search.latency_import import export_table
    from search.workspace import open_store

    with open_store(home, db) as store:
        table = export_table(store, name, file)
    if json:
        devices = [device.name for device in table.devices]
        print_json({"file": str(file), "configs": len(table.configs), "devices": devices})
    else:
        typer.echo(f"{file}: {len(table.configs)} configs on {len(table.devices)} devices.")


@latency.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `export` wrote, or a table of others.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the table. Default: its own, or that of the file."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Columns that are choices of a config; several are allowed."
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Columns that are quantities of a config, such as MACs."
        ),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Columns that are latencies in ms. Default: every other numeric one.",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Columns to leave out."),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE=FAMILY",
            help="Family of a device, or of those that match. Default: one of its own.",
        ),
    ] = None,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Add a latency table from a Parquet file: what `export` wrote, or a table of others.

    A table of others has a row for each config; --columns says which columns are its choices.
    """
    from search.latency_import import Layout, import_table
    from search.workspace import open_store

    families = {}
    for setting in family or ():
        device, equals, value = setting.partition("=")
        if not (device and equals and value):
            raise typer.BadParameter(f"{setting!r}: not DEVICE=FAMILY", param_hint="--family")
        families[device] = value
    layout = Layout(columns or (), features or (), devices or (), ignore or (), families)
    with open_store(home, db) as store:
        table = import_table(store, file, name, layout)
    if json:
        found = [{"name": device.name, "family": device.family} for device in table.devices]
        print_json({"table": table.name, "configs": len(table.configs), "devices": found})
        return
    rows = [(device.name, device.family) for device in table.devices]
    typer.echo(f"{table.name}: {len(table.configs)} configs on {len(rows)} devices.")
    print_table(("device", "family"), rows, "")


@latency.command("eval")
def eval_(
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Space whose latency table is used.",
            autocompletion=completion.spaces,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Latency table, in place of --space.",
            autocompletion=completion.tables,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Device of the table; several are allowed. Default: all."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--n", metavar="N", min=3, help="Measurements of the unseen device.")
    ] = 10,
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Latency predictor; several are allowed. Default: adaptive and macs.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="K", min=1, help="Draws of pool and test configs to average.")
    ] = 3,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict devices as if they were unseen, each with its whole family left out.

    The predictor learns from the other families, chooses N configs, is told the latencies of these
    on the device, and predicts the rest.
    """
    from search.latency_eval import evaluate_table, find_table
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = find_table(store, space, table)
    with progress(quiet) as report:
        scored = evaluate_table(
            found, predictor or ["adaptive", "macs"], count, seeds, device or (), report
        )
    if json:
        print_json({"table": found.name, "n": count, "scores": [s.to_json() for s in scored]})
        return
    rows = [
        (
            s.device,
            s.family,
            s.predictor,
            f"{s.spearman:.3f}",
            "-" if s.ceiling is None else f"{s.ceiling:.3f}",
            f"{s.kendall:.3f}",
            f"{s.mape:.1f} %",
            f"{100 * s.coverage90:.0f} %",
        )
        for s in scored
    ]
    header = (
        "device", "family left out", "predictor", "Spearman", "ceiling", "Kendall", "MAPE",
        "in 90 %",
    )  # fmt: skip
    print_table(header, rows, "The table has no device.")
