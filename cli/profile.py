"""`netcarve profile`: where the time of an inference goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import JsonOption, QuietOption
from cli.output import print_json, print_pairs, print_table
from cli.progress import progress

if TYPE_CHECKING:
    from compilers.profile import KernelProfile, Profile

HEADER = (
    "site",
    "kernel",
    "shape",
    "computes",
    "us",
    "share %",
    "GOP/s",
    "GB/s",
    "op/byte",
    "limit",
    "of roofline %",
)
_THROTTLED = "calls became slower while they were measured; let the machine cool down and repeat"


def profile(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder or .tar.gz of a bundle.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Write profile.json and roofline.png there."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure every kernel of a bundle while nothing else runs here, against the roofline."""
    from search.bundles import profile as profile_bundle
    from search.bundles import write_profile

    with progress(quiet) as report:
        found = profile_bundle(bundle, report)
    if output is not None:
        typer.echo(f"profile: {write_profile(found, output)}", err=json)
    if json:
        print_json({"bundle": str(bundle), **found.to_json()})
        return
    print_pairs(_summary(found))
    typer.echo()
    print_table(HEADER, [_row(kernel) for kernel in found.kernels], "no kernels")


def _summary(found: Profile) -> list[tuple[str, str]]:
    latency, roofline, total = found.latency, found.roofline, found.kernel_sum_ms
    spread = f"p10 to p90: {1e3 * latency.p10_ms:.2f} to {1e3 * latency.p90_ms:.2f} us"
    share = f"{100 * total / latency.median_ms:.0f} % of the latency"
    bandwidths = ", ".join(f"{b.level} {b.gbytes_per_s:.0f} GB/s" for b in roofline.bandwidths)
    peaks = f"float32 {roofline.float32_gops:.0f} GFLOP/s, int8 {roofline.int8_gops:.0f} GOP/s"
    memory = f"weights {_kb(found.weight_bytes)}, workspace {_kb(found.workspace_bytes)}"
    if found.peak_rss_bytes is not None:
        memory += f", process at most {found.peak_rss_bytes / 1e6:.1f} MB"
    pairs = [
        ("latency", f"{1e3 * latency.median_ms:.2f} us, {spread}"),
        ("cold cache", f"{1e3 * found.cold.median_ms:.2f} us"),
        ("kernels", f"{1e3 * total:.2f} us in {len(found.kernels)} calls, {share}"),
        ("memory", memory),
        ("roofline", f"{peaks}, {bandwidths}"),
        ("device", f"{found.hardware}, {roofline.isa}, one thread"),
    ]
    return [*pairs, ("warning", _THROTTLED)] if latency.throttled else pairs


def _row(kernel: KernelProfile) -> tuple[str, ...]:
    work = kernel.macs > 0
    return (
        kernel.site,
        kernel.kernel,
        _shape(kernel),
        kernel.arithmetic,
        f"{1e3 * kernel.measurement.median_ms:.2f}",
        f"{100 * kernel.share:.1f}",
        f"{kernel.gops:.1f}" if work else "",
        f"{kernel.gbytes_per_s:.1f}",
        f"{kernel.intensity:.1f}" if work else "",
        kernel.bound.limit,
        f"{100 * kernel.roofline_fraction:.0f}",
    )


def _shape(kernel: KernelProfile) -> str:
    """`36x16 -> 9x48, 5x5 stride 2`."""
    text = f"{_sizes(kernel.input_shape)} -> {_sizes(kernel.output_shape)}"
    if kernel.window > 1 or kernel.stride > 1:
        text += f", {kernel.window}x{kernel.window} stride {kernel.stride}"
    return text


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _kb(size: int) -> str:
    return f"{size / 1000:.1f} kB"
