"""`netcarve device pool`: latencies on all the devices that this machine can be."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DatabaseOption, HomeOption, JsonOption, QuietOption, SpaceOption
from cli.output import print_json, print_pairs, print_table
from cli.progress import duration, progress

pool = typer.Typer(
    name="pool",
    no_args_is_help=True,
    help="The devices that this machine can be: list them, measure a latency table on them.",
)


@pool.command("list")
def list_(json: JsonOption = False) -> None:
    """List the default pool, and what this machine cannot be."""
    from search.device_pool import default_pool

    found = default_pool()
    if json:
        print_json([device.to_json() for device in found])
        return
    rows = [
        (
            device.name,
            device.family,
            device.config.kind,
            device.config.isa,
            str(device.config.threads),
            str(device.config.batch),
            device.missing or "available",
        )
        for device in found
    ]
    header = ("device", "family", "kind", "isa", "threads", "batch", "")
    print_table(header, rows, "Nothing: no kernels are written for this processor.")


@pool.command()
def build(
    space: SpaceOption,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A device of the pool, or a registered one; several are allowed. Default: the "
            "whole pool.",
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Latency table. Default: named as the base space."),
    ] = None,
    configs: Annotated[int, typer.Option(metavar="N", min=1, help="Configs to measure.")] = 120,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.0, help="Stop in this time; run the command again to go on."
        ),
    ] = None,
    repeats: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share that is measured twice."),
    ] = 0.2,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed before.")] = False,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="Configs built at once.")
    ] = 2,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure configs of a space on a pool of devices, into a latency table."""
    from search.pool_build import build_pool
    from search.workspace import open_store

    with open_store(home, db) as store, progress(quiet) as tell:
        done = build_pool(
            store,
            space,
            tell,
            devices=devices or (),
            table=table,
            configs=configs,
            minutes=minutes,
            repeats=repeats,
            retry=retry,
            processes=processes,
        )
    if json:
        print_json(done.to_json())
        return
    pace = done.seconds_per_pair
    print_pairs(
        [
            ("latency table", done.table),
            ("devices", ", ".join(done.devices)),
            ("configs", str(done.configs)),
            ("latencies", f"{done.measured} measured, {done.known} known before"),
            ("measured twice", str(done.repeated)),
            ("failed", str(done.failed)),
            *((f"  {name}", reason) for name, reason in done.failures.items()),
            ("took", duration(done.seconds)),
            ("of this, builds", duration(done.build_seconds)),
            ("measurements", duration(done.measure_seconds)),
            ("per latency", "" if pace is None else f"{pace:.2f} s"),
        ]
    )
    if not done.complete:
        typer.echo("Not finished: run the command again to go on.")
