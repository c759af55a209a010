"""`netcarve kernels`: the library of compiled, tuned and timed kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DatabaseOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SpaceOption,
    device_option,
)
from cli.output import print_json, print_pairs, print_table
from cli.progress import duration, progress

if TYPE_CHECKING:
    from compilers.kernel_records import TileField

kernels = typer.Typer(
    name="kernels",
    no_args_is_help=True,
    help="The kernel library: build, list, export, import.",
)


@kernels.command()
def build(
    space: SpaceOption,
    device: Annotated[str, device_option("Name of a registered device.")],
    limit: Annotated[
        float | None,
        typer.Option(
            "--limit",
            metavar="MINUTES",
            min=0.0,
            help="Stop after so long; run the command again to go on.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="Kernels compiled at once.")
    ] = 2,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tune and time every kernel that the subnets of a space can contain on a device."""
    from search.kernels import build_kernels
    from search.workspace import open_store

    with open_store(home, db) as store, progress(quiet) as report:
        done = build_kernels(store, space, device, report, limit, processes)
    if json:
        print_json(done.to_json())
        return
    found = done.report
    print_pairs(
        [
            ("library", str(done.library)),
            ("kernels", str(found.kernels)),
            ("known before", str(found.known)),
            ("timed", str(found.timed)),
            ("tile chosen", f"{found.tuned}, other than the rule's: {found.changed}"),
            ("choice taken over", str(found.reused)),
            ("failed candidates", str(found.failed_candidates)),
            ("failed kernels", str(found.failed)),
            ("took", duration(found.seconds)),
        ]
    )
    if not found.complete:
        typer.echo("Not finished: run the command again to go on.")


@kernels.command("list")
def list_(
    device: Annotated[
        str | None, device_option("Latencies on this device instead of chosen tiles.")
    ] = None,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the chosen tiles, or the latencies of all kernels on a device, slowest first."""
    from compilers.kernel_records import label
    from search.kernels import default_library, library_timings

    library = default_library()
    if device is None:
        choices = list(library.choices().values())
        if json:
            print_json([choice.model_dump(mode="json") for choice in choices])
            return
        rows = [(c.isa, str(c.threads), _tile(c.tile), label(c.kernel)) for c in choices]
        print_table(("isa", "threads", "tile", "kernel"), rows, "No tile was chosen yet.")
        return
    from search.devices import show_device
    from search.workspace import open_store

    with open_store(home, db) as store:
        timings = library_timings(library, show_device(store, device))
    if json:
        print_json([timing.model_dump(mode="json") for timing in timings])
        return
    times = [
        (f"{t.median_us:.2f}", f"{t.p10_us:.2f}", f"{t.p90_us:.2f}", _tile(t.tile),
         label(t.kernel))
        for t in timings
    ]  # fmt: skip
    header = ("median us", "p10 us", "p90 us", "tile", "kernel")
    empty = f"No latencies. Measure: netcarve kernels build --space NAME --device {device}"
    print_table(header, times, empty)


@kernels.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Receives a choice a line, JSON.")],
    json: JsonOption = False,
) -> None:
    """Write the chosen tiles of all kernels as JSON lines; they hold no code."""
    from search.kernels import default_library, export_choices

    count = export_choices(default_library(), file)
    if json:
        print_json({"file": str(file), "choices": count})
    else:
        typer.echo(f"{file}: {count} choices.")


@kernels.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.")],
    json: JsonOption = False,
) -> None:
    """Add chosen tiles from a file, checked line by line; own choices stay."""
    from search.kernels import default_library, import_choices

    done = import_choices(default_library(), file)
    if json:
        print_json(done.to_json())
    else:
        typer.echo(f"{done.added} choices added; {done.kept} were known.")


def _tile(tile: TileField | None) -> str:
    return "rule" if tile is None else f"{tile.rows}x{tile.columns}x{tile.vectors}"
