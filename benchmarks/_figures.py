"""What the benchmarks share: lines of progress, and figures beside their targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaces.files import atomic_write_text


def report(phase: str, done: int, total: int) -> None:
    """One line per finished phase."""
    if done == total:
        print(f"  {phase}: {total}", flush=True)


def show_figures(
    figures: Mapping[str, float], targets: Mapping[str, list[Any]], file: Path | None
) -> None:
    """Print figures with their targets; write both as JSON to `file` where one is given.

    Args:
        figures: Name -> value.
        targets: Name -> [">=" or "<=", bound].
        file: Receives `{"figures": ..., "targets": ...}`.
    """
    print()
    for name, value in figures.items():
        bound = f"(target {' '.join(map(str, targets[name]))})" if name in targets else ""
        print(f"{name} {value:.4f} {bound}".rstrip())
    if file is not None:
        content = {"figures": dict(figures), "targets": dict(targets)}
        atomic_write_text(file, json.dumps(content, indent=2) + "\n")
