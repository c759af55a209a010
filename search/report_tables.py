"""Members of a front as Markdown tables and lines of a report."""

from __future__ import annotations

import json
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
CONFIG_COLUMNS = (
    "config",
    "resolution",
    "stem",
    "stages (width: expansion x kernel, bits)",
    "head",
)


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


def config_row(member: FrontMember) -> tuple[str, ...]:
    """A MobileNetV3 config as the cells of `CONFIG_COLUMNS`; other families list every value."""
    values = member.config
    if "stem.width" not in values:
        return (member.key, "", "", json.dumps(values), "")
    stages = []
    stage = 1
    while (width := values.get(f"stage{stage}.width")) is not None:
        blocks = [
            _block(values, f"stage{stage}.block{j}") for j in range(values[f"stage{stage}.depth"])
        ]
        stages.append(f"{width}: {' '.join(blocks)}")
        stage += 1
    return (
        member.key,
        f"{values['resolution']}",
        f"{values['stem.width']}",
        "; ".join(stages),
        f"{values['head.width']} ({values['head.w_bits']}/{values['classifier.w_bits']})",
    )


def _block(values: dict[str, Any], site: str) -> str:
    bits = "/".join(str(values[f"{site}.{x}.w_bits"]) for x in ("expand", "depthwise", "project"))
    excite = "+se" if values[f"{site}.se"] else ""
    return f"e{values[f'{site}.expansion']}k{values[f'{site}.kernel']}{excite} {bits}"


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
