"""The `netcarve` command.

Nothing heavy is imported before a command needs it: `--help` and tab completion stay instant.
"""

from __future__ import annotations

import typer

from cli.bundle import bundle
from cli.commands import Commands
from cli.device import device
from cli.doctor import doctor
from cli.kernels import kernels
from cli.latency import latency
from cli.profile import profile
from cli.report import report
from cli.search import search
from cli.space import space
from cli.supernet import supernet
from cli.version import VersionOption

app = typer.Typer(
    name="netcarve",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(search)
app.add_typer(device)
app.add_typer(space)
app.add_typer(supernet)
app.add_typer(kernels)
app.add_typer(latency)
app.add_typer(bundle)
app.command()(profile)
app.command()(report)
app.command()(doctor)


@app.callback()
def netcarve(version: VersionOption = False) -> None:
    """Search architecture, pruning and bit-width for your devices; compile and measure the result.

    Start with: netcarve search run examples/digits.yaml
    """


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="netcarve")
