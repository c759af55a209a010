"""`netcarve supernet`: the weight-sharing networks that jobs search in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion
from cli.options import (
    ArtifactsOption,
    DatabaseOption,
    HomeOption,
    JobFileArgument,
    JsonOption,
    QuietOption,
)
from cli.output import print_json, print_pairs, print_table, timestamp
from cli.progress import progress

if TYPE_CHECKING:
    from search.supernet_eval import SubnetScore
    from search.supernet_view import SupernetView

supernet = typer.Typer(
    name="supernet", no_args_is_help=True, help="Supernets: train, eval, list, show."
)

SupernetArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Key of a supernet, or id of a job that uses it.",
        autocompletion=completion.supernets,
    ),
]


@supernet.command()
def train(
    file: JobFileArgument,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the supernet of the job in FILE and nothing else, or go on with its training."""
    from search.job import load_job

    settings = load_job(file)
    from search import supernet_training
    from search.workspace import open_workspace

    with open_workspace(home, db, artifacts) as work, progress(quiet) as report:
        done = supernet_training.train(settings, work.store, work.artifacts, work.home, report)
    _print(done, json)


@supernet.command("eval")
def eval_(
    name: SupernetArgument,
    random: Annotated[
        int, typer.Option("--random", metavar="N", min=0, help="Random architectures; default 4.")
    ] = 4,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Decides which; default 0.")
    ] = 0,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate the smallest, the largest and random subnets at every uniform bit-width and form."""
    from search.supernet_eval import evaluate_supernet
    from search.workspace import open_workspace

    with open_workspace(home, db, artifacts) as work, progress(quiet) as report:
        found = evaluate_supernet(name, random, seed, work.store, work.artifacts, work.home, report)
    if json:
        print_json(found.to_json())
        return
    header = ("subnet", "bits", "form", "accuracy %", "not recalibrated %", "M MACs",
              "k params", "kB", "config")  # fmt: skip
    print_table(header, [_score(one) for one in found.subnets], "No subnets.")


@supernet.command("list")
def list_(db: DatabaseOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the supernets: trained ones, oldest first, then unfinished trainings."""
    from search.supernet_view import list_supernets
    from search.workspace import find_places, open_store

    with open_store(home, db) as store:
        found = list_supernets(store, find_places(home, db).home)
    if json:
        print_json([one.to_json() for one in found])
        return
    rows = [
        (
            one.key,
            _state(one),
            one.space,
            str(one.data.get("name", "")),
            "" if one.created is None else timestamp(one.created),
            ", ".join(one.jobs),
        )
        for one in found
    ]
    header = ("supernet", "state", "space", "data", "trained", "jobs")
    print_table(header, rows, "No supernets. Train one: netcarve supernet train FILE")


@supernet.command()
def show(
    name: SupernetArgument,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show one supernet: state, space, data, training options, who uses it, where it lies."""
    from search.supernet_view import show_supernet
    from search.workspace import find_places, open_store

    with open_store(home, db) as store:
        found = show_supernet(store, find_places(home, db).home, name)
    _print(found, json)


def _print(found: SupernetView, json: bool) -> None:
    if json:
        print_json(found.to_json())
        return
    pairs = [
        ("supernet", found.key),
        ("state", _state(found)),
        ("space", f"{found.space}, family {found.family}" if found.space else ""),
        *((f"data: {name}", str(value)) for name, value in found.data.items()),
        *((f"option: {name}", str(value)) for name, value in found.options.items()),
        ("training images", "" if found.train_images is None else str(found.train_images)),
        ("trained", "" if found.created is None else timestamp(found.created)),
        ("jobs", ", ".join(found.jobs)),
        ("folder", found.folder),
        ("artifact", found.artifact or ""),
    ]
    print_pairs(pairs)


def _state(found: SupernetView) -> str:
    return found.state if found.step is None else f"{found.state} at step {found.step}"


def _score(one: SubnetScore) -> tuple[str, ...]:
    return (
        one.subnet,
        "" if one.bits is None else str(one.bits),
        ", ".join(map(str, one.form.values())),
        f"{one.accuracy:.2f}",
        f"{one.stale_accuracy:.2f}",
        f"{one.macs / 1e6:.2f}",
        f"{one.params / 1000:.1f}",
        f"{one.bytes / 1000:.1f}",
        one.key,
    )
