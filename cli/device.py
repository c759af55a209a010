"""`netcarve device`: the hardware that subnets are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.device_pool import pool
from cli.options import DatabaseOption, DeviceArgument, HomeOption, JsonOption
from cli.output import print_json, print_pairs, print_table

if TYPE_CHECKING:
    from search.devices import RegisteredDevice

device = typer.Typer(
    name="device", no_args_is_help=True, help="Devices: add, list, show, probe, serve, pool."
)
device.add_typer(pool)


@device.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new device.")],
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Kind of device: local_cpu, this machine's; tvm_rpc, behind a TVM RPC server; "
            "cuda, an NVIDIA GPU; onnxruntime and torch, this machine in another runtime; "
            "emulated_aarch64, an ARM processor under qemu.",
        ),
    ] = "local_cpu",
    isa: Annotated[
        str,
        typer.Option(
            metavar="ISA",
            help="Instruction set: avx512_vnni, avx512, avx2, neon_dot, a GPU's such as sm_80, or "
            "native for the best.",
        ),
    ] = "native",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads that one inference uses.")] = 1,
    batch: Annotated[int, typer.Option(metavar="N", help="Inputs of one inference.")] = 1,
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of that kind of device, such as port=9190; may be given several times.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a device of this name.")
    ] = False,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Probe a device and store it under NAME."""
    from search.devices import add_device
    from search.workspace import open_store

    settings = {"name": name, "kind": kind, "isa": isa, "threads": threads, "batch": batch}
    for setting in own or ():
        key, equals, value = setting.partition("=")
        if not equals or key in settings:
            reason = "given twice" if equals else "not KEY=VALUE"
            raise typer.BadParameter(f"{setting!r}: {reason}", param_hint="--set")
        settings[key] = value
    with open_store(home, db) as store:
        _print(add_device(store, settings, replace=replace), json)


@device.command("list")
def list_(db: DatabaseOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the registered devices."""
    from search.devices import list_devices
    from search.workspace import open_store

    with open_store(home, db) as store:
        found = list_devices(store)
    if json:
        print_json([one.to_json() for one in found])
        return
    rows = [
        (
            one.name,
            str(one.config["kind"]),
            one.capabilities.isa,
            str(one.capabilities.threads),
            str(one.capabilities.batch),
            ", ".join(sorted(one.capabilities.schemes)),
            one.capabilities.hardware,
        )
        for one in found
    ]
    header = ("name", "kind", "isa", "threads", "batch", "schemes", "hardware")
    print_table(header, rows, "No devices. Add one: netcarve device add NAME")


@device.command()
def show(
    name: DeviceArgument,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a device's settings, what its probe found, and its registered spaces."""
    from search.devices import show_device
    from search.workspace import open_store

    with open_store(home, db) as store:
        _print(show_device(store, name), json)


@device.command()
def probe(
    name: DeviceArgument,
    db: DatabaseOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Find out again what a device executes, and store it."""
    from search.devices import probe_device
    from search.workspace import open_store

    with open_store(home, db) as store:
        _print(probe_device(store, name), json)


@device.command()
def serve(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 for a free one.")
    ] = 9190,
    key: Annotated[
        str, typer.Option(metavar="KEY", help="Name under which clients find it; no secret.")
    ] = "",
    tracker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Register at this TVM RPC tracker, under --key."),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Most threads of one inference.")] = 1,
) -> None:
    """Let other machines run and time binaries on this one: a TVM RPC server.

    Whoever connects can run code on this machine. Leave it at 127.0.0.1 and use an ssh tunnel.
    """
    from compilers.rpc_server import parse_address, serve

    serve(host, port, key, None if tracker is None else parse_address(tracker), threads, _serving)


def _serving(address: str, exposed: bool) -> None:
    if exposed:
        typer.echo(
            f"warning: whoever can connect to {address} can run code on this machine, with your "
            "rights; nobody is asked for a password",
            err=True,
        )
    typer.echo(f"TVM RPC server at {address}; Ctrl-C ends it")


def _print(found: RegisteredDevice, json: bool) -> None:
    if json:
        print_json(found.to_json())
        return
    capabilities = found.capabilities
    print_pairs(
        [
            ("name", found.name),
            *((key, str(value)) for key, value in found.config.items() if key != "name"),
            ("hardware", capabilities.hardware),
            ("compiled for", capabilities.isa),
            ("schemes", ", ".join(sorted(capabilities.schemes))),
            ("operators", ", ".join(sorted(capabilities.operators))),
            ("spaces", ", ".join(found.spaces) or "none registered: every space, unrestricted"),
        ]
    )
