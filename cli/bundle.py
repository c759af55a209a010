"""`netcarve bundle`: run, verify and deploy what a search has left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption, QuietOption
from cli.output import print_json, print_pairs
from cli.progress import progress

bundle = typer.Typer(name="bundle", no_args_is_help=True, help="Bundles: run, verify, native.")


@bundle.command()
def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a bundle.")],
    input_: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="X.npy",
            help="Inputs, float32 [n, channels, size, size], or tokens, int64 [n, T].",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="Y.npy", help="Write the logits, float32 [n, classes]."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a bundle; needs only numpy and the TVM runtime."""
    from io import BytesIO

    import numpy as np

    # Not `compilers.bundle`, which needs more than numpy and the TVM runtime.
    from compilers.runtime import load_bundle, read_input
    from spaces.files import atomic_write_bytes

    model, manifest = load_bundle(folder)
    logits = model(read_input(input_, manifest["input_shape"], manifest["input_dtype"]))
    classes = logits.argmax(-1)
    if output is not None:
        content = BytesIO()
        np.save(content, logits)
        atomic_write_bytes(output, content.getvalue())
    if json:
        written = None if output is None else str(output)
        print_json({"classes": classes.tolist(), "logits": logits.tolist(), "output": written})
        return
    for (i, *token), found in np.ndenumerate(classes):
        which = "".join(f", token {j}" for j in token)
        typer.echo(f"input {i}{which}: class {found}, logit {logits[(i, *token, found)]:.4f}")
    if output is not None:
        typer.echo(f"logits: {output}")


@bundle.command()
def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder or .tar.gz of a bundle.")
    ],
    measure: Annotated[
        bool, typer.Option(help="Measure the latency on this machine again.")
    ] = True,
    signature: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A signature of the manifest, to be checked first."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public key of the signer, such as id_ed25519.pub."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a bundle's hashes, then its outputs, then measure it while nothing else runs here."""
    from compilers.signature import Signature
    from search.bundles import verify

    if (signature is None) != (key is None):
        given, missing = ("--key", "--signature") if signature is None else ("--signature", "--key")
        raise typer.BadParameter(f"needs {missing}", param_hint=given)
    signed = Signature(signature, key) if signature is not None and key is not None else None
    with progress(quiet) as report:
        found = verify(bundle, measure, report, signed)
    latency = found.measurement
    if json:
        print_json(
            {
                "bundle": str(bundle),
                "signed": signed is not None,
                "files": found.files,
                "difference": found.difference,
                "measurement": None if latency is None else latency.to_json(),
            }
        )
        return
    pairs = [("signature", f"by the owner of {key}")] if signed is not None else []
    pairs += [
        ("hashes", f"{found.files} files match"),
        ("outputs", f"match, largest difference {found.difference:.1e} of the largest logit"),
    ]
    if latency is not None:
        spread = f"p10 to p90: {latency.p10_ms:.4f} to {latency.p90_ms:.4f} ms"
        pairs.append(("latency", f"{latency.median_ms:.4f} ms, {spread}"))
        if latency.throttled:
            pairs.append(("warning", "calls became slower while they were measured"))
    print_pairs(pairs)


@bundle.command()
def native(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a bundle.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The executable; its folder is replaced whole. Default: native/run in DIR.",
        ),
    ] = None,
    compiler: Annotated[
        str | None,
        typer.Option(
            metavar="CXX",
            help="A C++17 compiler for the bundle's architecture, by name or path. Default: GCC.",
        ),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of TVM's unpacked wheels for the bundle's architecture, if it is not "
            "this machine's.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a bundle's hashes, then build an executable that needs no Python."""
    from compilers.native import build_native

    executable = build_native(folder, output, compiler, runtime)
    size = sum(file.stat().st_size for file in executable.parent.iterdir())
    if json:
        print_json({"executable": str(executable), "bytes": size})
        return
    print_pairs(
        [
            ("executable", str(executable)),
            ("folder", f"{size / 1000:.1f} kB, to be copied as a whole"),
        ]
    )
