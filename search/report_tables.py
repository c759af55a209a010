"""Members of a front as Markdown tables and lines of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from search.results import KB, FrontMember

MEMBER_COLUMNS = (
    "config",
    "accuracy %",
    "report accuracy %",
    "predicted ms",
    "measured ms",
    "p10 to p90 ms",
    "kB",
    "M MACs",
    "layers",
)
TWIN_COLUMNS = ("architecture of", "accuracy % fp32 / int8", "measured ms fp32 / int8", "speed-up",
                "kB fp32 / int8")  # fmt: skip
FINETUNED_COLUMNS = ("config", "accuracy % of the search", "accuracy % fine-tuned",
                     "report accuracy % fine-tuned", "measured ms of the search",
                     "measured ms fine-tuned")  # fmt: skip
CONFIG_COLUMNS = ("config", "values, by part of the network (bits are those of weights)")
# A block of a stage, and the layer and quantity in it.
_BLOCK = re.compile(r"(\w+\.block\d+)\.(.+)")


def member_row(member: FrontMember) -> tuple[str, ...]:
    """A front member as the cells of `MEMBER_COLUMNS`."""
    return (
        member.key,
        f"{member.accuracy:.2f}",
        "" if member.report_accuracy is None else f"{member.report_accuracy:.2f}",
        "" if member.predicted_ms is None else f"{member.predicted_ms:.4f}",
        f"{member.measured_ms:.4f}",
        f"{member.p10_ms:.4f} to {member.p90_ms:.4f}",
        f"{member.bytes / KB:.1f}",
        f"{member.macs / 1e6:.2f}",
        ", ".join(f"{count} {name}" for name, count in member.precisions.items()),
    )


def config_row(member: FrontMember) -> tuple[str, str]:
    """A config of any family as the cells of `CONFIG_COLUMNS`."""
    parts, bits = dict[str, list[str]](), dict[str, list[str]]()
    for name, value in member.config.items():
        part, _, what = name.rpartition(".")
        if block := _BLOCK.fullmatch(name):
            part, what = block[1], block[2]
        if what.endswith("w_bits"):
            bits.setdefault(part, []).append(str(value))
        else:
            parts.setdefault(part, []).append(f"{what} {value}")
    for part, widths in bits.items():
        parts.setdefault(part, []).append(f"{'/'.join(widths)} bits")
    told = (
        f"{part}: {', '.join(words)}" if part else ", ".join(words) for part, words in parts.items()
    )
    return member.key, "; ".join(told)


def twin_row(floating: FrontMember, integer: FrontMember) -> tuple[str, ...]:
    """One architecture in float32 and in 8 bits as the cells of `TWIN_COLUMNS`."""
    return (
        integer.key,
        f"{floating.accuracy:.2f} / {integer.accuracy:.2f}",
        f"{floating.measured_ms:.4f} / {integer.measured_ms:.4f}",
        f"{floating.measured_ms / integer.measured_ms:.2f}x",
        f"{floating.bytes / KB:.1f} / {integer.bytes / KB:.1f}",
    )


def small_subnet(front: Sequence[FrontMember]) -> list[str]:
    """One line on how much smaller a member is than the largest, at equal bits."""
    if not front:
        return []
    best = max(front, key=lambda m: m.accuracy)
    largest = max(front, key=lambda m: m.float_bytes)
    near = [m for m in front if m.accuracy >= best.accuracy - 1.5]
    small = min(near, key=lambda m: m.float_bytes)
    share = small.float_bytes / largest.float_bytes
    return [
        f"Within 1.5 points of the best, {small.key} has {100 * share:.0f} % of the bytes of the "
        f"largest member, {largest.key}, at equal bits.",
        "",
    ]


def finetuned_section(front: Sequence[FrontMember], settings: dict[str, Any]) -> list[str]:
    """The fine-tuned subnets beside those that the search has found."""
    rows = [
        (
            member.key,
            f"{member.accuracy:.2f}",
            f"{member.finetuned_accuracy:.2f}",
            "" if member.report_accuracy is None else f"{member.report_accuracy:.2f}",
            f"{member.measured_ms:.4f}",
            f"{member.finetuned_ms:.4f}",
        )
        for member in front
        if member.finetuned_accuracy is not None and member.finetuned_ms is not None
    ]
    if not rows:
        return []
    epochs = settings["finetune"]["epochs"]
    return [
        "### Fine-tuned",
        "",
        f"Each subnet was trained on alone for {epochs} epochs after the search. The bundles hold "
        "the fine-tuned subnets, but for those that it made worse, which they hold as they were "
        "found. Report accuracy is that of the bundles, here and above; everything else above is "
        "from before.",
        "",
        *table(FINETUNED_COLUMNS, rows),
        "",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]
