"""Do two measurements of the same binaries, far apart, agree on their order?

Twenty random subnets of the digits space, half of them in W8A8, are built once and measured through
the device, as a search measures them: all of them in one call. After a pause, during which other
work loads every processor, the same binaries are measured again. `repeat_spearman` is the rank
correlation of the two lists of medians.

    python benchmarks/repeatability.py [--pause MINUTES] [--json FILE]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from _figures import show_figures
from _subnets import build_subnets

COUNTS = {"fp32": 10, "int8": 10}
SEED = 40
LOAD_SHARE = 0.8
"""Share of the pause with other load; the rest lets the processor settle."""
TARGETS = {"repeat_spearman": [">=", 0.98]}


def load(seconds: float) -> None:
    """Keep every processor busy with matrix products for a while."""
    started = [
        multiprocessing.get_context("spawn").Process(target=_multiply, args=(seconds,))
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()


def _multiply(seconds: float) -> None:
    import numpy as np

    from search.host_lock import HostLock

    matrix = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    end = time.monotonic() + seconds
    with HostLock().shared("load between two measurements of a benchmark"):
        while time.monotonic() < end:
            matrix = matrix @ matrix
            matrix /= matrix.max()


def main() -> None:
    """Print both medians of every binary and, with --json, write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pause", type=float, default=10.0, metavar="MINUTES")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not options.pause >= 0:
        parser.error(f"--pause {options.pause:g}: must be 0 minutes or more")
    from scipy.stats import spearmanr

    from compilers import DeviceConfig, LocalCpu
    from search.host_lock import HostLock

    medians: list[list[float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch,
        LocalCpu(DeviceConfig(name="benchmark")) as device,
    ):
        subnets = build_subnets(device, Path(scratch), COUNTS, SEED)
        for number in (1, 2):
            with HostLock().exclusive(f"measurement {number} of repeatability"):
                measured = device.time([subnet.build for subnet in subnets])
            medians.append([measurement.median_ms for measurement in measured])
            print(f"measurement {number}: A/A ratio {measured[0].aa_ratio:.3f}", flush=True)
            if number == 1:
                seconds = 60 * options.pause
                load(LOAD_SHARE * seconds)
                time.sleep((1 - LOAD_SHARE) * seconds)
    print(f"\n{'subnet':<8} {'first':>9} {'second':>9} {'ratio':>7}   (µs per inference)")
    for subnet, first, second in zip(subnets, *medians, strict=True):
        print(f"{subnet.label:<8} {first * 1e3:>9.1f} {second * 1e3:>9.1f} {second / first:>7.3f}")
    figures = {"repeat_spearman": float(spearmanr(*medians).statistic)}
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    sys.exit(main())
