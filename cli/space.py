"""`netcarve space`: what a search may choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli.options import DatabaseOption, HomeOption, JsonOption, device_option
from cli.output import print_json, print_pairs, print_table

space = typer.Typer(name="space", no_args_is_help=True, help="Search spaces: list, show, register.")


@space.command("list")
def list_(db: DatabaseOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the spaces that ship with netcarve and those registered for devices."""
    from search.spaces_view import list_spaces
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = list_spaces(store)
    if json:
        print_json([one.to_json() for one in found])
        return
    rows = [
        (
            one.name,
            one.device or "",
            one.base or "",
            str(len(one.space.dimensions)),
            f"10^{one.space.log10_size:.1f}",
        )
        for one in found
    ]
    print_table(("name", "device", "base", "dimensions", "configs"), rows, "No spaces.")


@space.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a space.", autocompletion=completion.spaces),
    ],
    device: Annotated[
        str | None, device_option("The space registered under NAME for this device.")
    ] = None,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a space's dimensions and their choices."""
    from search.spaces_view import show_space
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = show_space(store, name, device)
    if json:
        print_json(found.to_json(choices=True))
        return
    pairs = [("name", found.name), ("family", found.space.family.name)]
    if found.device is not None:
        pairs += [("device", found.device), ("base", str(found.base))]
    pairs.append(("configs", f"10^{found.space.log10_size:.1f}"))
    print_pairs(pairs)
    rows = [(d.name, str(d.kind), ", ".join(map(str, d.choices))) for d in found.space.dimensions]
    typer.echo()
    print_table(("dimension", "kind", "choices"), rows, "No dimensions.")


@space.command()
def register(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML: base space, schemes, choices.")
    ],
    device: Annotated[str, device_option("The device it is for.")],
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Restrict a base space for a device: jobs that search the base space there use it."""
    from search.devices import register_space_file
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = register_space_file(store, file, device)
    if json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"Registered {found.name} for device {device}: 10^{found.space.log10_size:.1f} configs."
        )
