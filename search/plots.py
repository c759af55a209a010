"""Plots of a job's results."""

from __future__ import annotations

import io
from collections.abc import Mapping

from search.results import DeviceResults

SURFACE, INK, MUTED, GRID = "#fcfcfb", "#0b0b0b", "#52514e", "#e4e3df"
SERIES = ("#2a78d6", "#d6622a", "#2f8f5b", "#8a4fc4", "#b8860b", "#c43a5b")


def plot_fronts(devices: Mapping[str, DeviceResults]) -> bytes:
    """A PNG: left every verified subnet and each device's front, right predicted against measured.

    Latency is logarithmic; marks of the front are filled, the others are faint.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, facecolor=SURFACE, layout="constrained")
    FigureCanvasAgg(figure)
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
    for axes in (left, right):
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
