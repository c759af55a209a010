"""Plots of a job's results, and of a bundle's profile."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compilers.profile import KernelProfile, Profile
    from search.results import DeviceResults

SURFACE, INK, MUTED, GRID = "#fcfcfb", "#0b0b0b", "#52514e", "#e4e3df"
SERIES = ("#2a78d6", "#d6622a", "#2f8f5b", "#8a4fc4", "#b8860b", "#c43a5b")


def plot_fronts(devices: Mapping[str, DeviceResults]) -> bytes:
    """A PNG: left every verified subnet and each device's front, right predicted against measured.

    Latency is logarithmic; marks of the front are filled, the others are faint.
    """
    figure = _figure(11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for (name, results), color in zip(devices.items(), SERIES * len(devices), strict=False):
        points = [(v.measured_ms, 100 * v.accuracy) for v in results.verified]
        front = [(v.measured_ms, 100 * v.accuracy) for v in results.front]
        # With further objectives a member may be on the front for these alone.
        stairs = [p for i, p in enumerate(front) if all(p[1] > q[1] for q in front[:i])]
        if points:
            left.scatter(*zip(*points, strict=True), s=14, color=color, alpha=0.25, linewidths=0)
        if front:
            left.scatter(*zip(*front, strict=True), s=22, color=color, linewidths=0)
            steps = {"drawstyle": "steps-post", "lw": 1.6}
            left.plot(*zip(*stairs, strict=True), color=color, label=name, **steps)
        pairs = [
            (v.predicted_ms, v.measured_ms) for v in results.verified if v.predicted_ms is not None
        ]
        if pairs:
            right.scatter(*zip(*pairs, strict=True), s=18, color=color, label=name, linewidths=0)
    left.set(xscale="log", xlabel="measured latency, ms", ylabel="accuracy, selection split, %")
    left.set_title("Verified subnets and fronts", loc="left", color=INK)
    right.set(xscale="log", yscale="log", xlabel="predicted without its own measurement, ms")
    right.set_ylabel("measured, ms")
    right.set_title("Latency predictor", loc="left", color=INK)
    low = min((*right.get_xlim(), *right.get_ylim()))
    high = max((*right.get_xlim(), *right.get_ylim()))
    right.plot([low, high], [low, high], color=MUTED, lw=1, ls=":", label="equal")
    return _png(figure)


def plot_roofline(profile: Profile) -> bytes:
    """A PNG: operations per second of every kernel against its operations per byte, logarithmic.

    Lines are the measured peaks and bandwidths; the area of a mark is the kernel's share of the
    time. Kernels that do no multiply-accumulate are not in it.
    """
    figure = _figure(8, 5.2)
    axes = figure.subplots()
    roofline = profile.roofline
    shown = [kernel for kernel in profile.kernels if kernel.macs]
    found = [kernel.intensity for kernel in shown] or [1.0]
    peaks = (("float32", roofline.float32_gops), ("int8", roofline.int8_gops))
    least = min(b.gbytes_per_s for b in roofline.bandwidths)
    # From left of every kernel to right of where the slowest memory meets the highest peak.
    reach = (min(found) / 2, 2 * max(*found, max(peak for _, peak in peaks) / least))
    for (name, peak), style in zip(peaks, ("-", "--"), strict=True):
        axes.plot(reach, [peak, peak], color=INK, lw=1.2, ls=style)
        label = f"{name} peak, {peak:.0f} GOP/s"
        axes.annotate(label, (reach[1], peak), ha="right", va="bottom", color=INK, fontsize=8)
    top = max(peak for _, peak in peaks)
    for bandwidth in roofline.bandwidths:
        ridge = top / bandwidth.gbytes_per_s
        heights = [reach[0] * bandwidth.gbytes_per_s, top]
        axes.plot([reach[0], ridge], heights, color=MUTED, lw=1)
        label = f"{bandwidth.level}, {bandwidth.gbytes_per_s:.0f} GB/s"
        place = {"xytext": (6, -1), "textcoords": "offset points", "va": "top"}
        axes.annotate(label, (reach[0], heights[0]), **place, color=MUTED, fontsize=8)
    groups: dict[str, list[KernelProfile]] = {}
    for kernel in shown:
        groups.setdefault(f"{kernel.kernel}, {kernel.arithmetic}", []).append(kernel)
    for (name, members), color in zip(groups.items(), SERIES * len(groups), strict=False):
        axes.scatter(
            [kernel.intensity for kernel in members],
            [kernel.gops for kernel in members],
            s=[20 + 600 * kernel.share for kernel in members],
            color=color, alpha=0.7, linewidths=0, label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=reach)
    axes.set(xlabel="operations per byte", ylabel="measured GOP/s")
    axes.set_title(f"{profile.hardware}, {roofline.isa}, one thread", loc="left", color=INK)
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, facecolor=SURFACE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    """The figure, its axes in the common style."""
    for axes in figure.axes:
        axes.set_facecolor(SURFACE)
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=MUTED, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=SURFACE)
    return buffer.getvalue()
