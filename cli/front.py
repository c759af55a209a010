"""Pareto fronts as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from cli.output import print_table

if TYPE_CHECKING:
    from search.results import FrontMember

HEADER = (
    "accuracy %",
    "report accuracy %",
    "predicted ms",
    "measured ms",
    "kB",
    "int8/fp32 layers",
    "config",
)

# After the accuracy that the search has found, when there is any.
FINETUNED = "fine-tuned %"


def print_front(device: str, members: Sequence[FrontMember]) -> None:
    """One device's front, fastest first."""
    typer.echo(f"{device}:")
    if members and not any(member.feasible for member in members):
        typer.echo("no verified subnet meets the constraints; these are the closest")
    header, rows = list(HEADER), [list(_row(member)) for member in members]
    if any(member.finetuned_accuracy is not None for member in members):
        header.insert(1, FINETUNED)
        for row, member in zip(rows, members, strict=True):
            row.insert(1, _optional(member.finetuned_accuracy, 2))
    print_table(header, rows, "nothing verified yet")
    typer.echo()


def _row(member: FrontMember) -> tuple[str, ...]:
    floating = member.precisions.get("fp32", 0)
    integer = sum(member.precisions.values()) - floating
    return (
        f"{member.accuracy:.2f}",
        _optional(member.report_accuracy, 2),
        _optional(member.predicted_ms, 4),
        f"{member.measured_ms:.4f}",
        f"{member.bytes / 1000:.1f}",
        f"{integer}/{floating}",
        member.key,
    )


def _optional(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
