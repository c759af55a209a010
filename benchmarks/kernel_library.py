"""What the kernel library costs and what it is good for: one thread, batch 1.

In an empty library, every kernel of `mobilenetv3_digits` on this machine is tuned and timed; a
second device of the same instruction set then takes the choices over. With the library warm,
subnets that were never built are built (CPU time of all processes, tracing and checks included).
Then a hundred random subnets in five bands of +-15 % multiply-accumulates are measured, and their
latencies are compared with their multiply-accumulates and with the sum of their kernels' latencies.

    python benchmarks/kernel_library.py [--json FILE] [--library DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _figures import report, show_figures

if TYPE_CHECKING:
    from compilers import Build, Device
    from spaces import Config, SearchSpace

SPACE = "mobilenetv3_digits"
FIRST, SECOND = "first", "second"
BANDS, IN_A_BAND, HALF_WIDTH = 5, 20, 0.15
POOL = 20_000
SEED = 30
SECOND_MINUTES = 2.0
TARGETS: dict[str, list[Any]] = {
    "distinct_kernels": [">=", 1000],
    "fill_minutes": ["<=", 30],
    "reused_choices_share": [">=", 1.0],
    "unseen_subnet_build_cpu_s": ["<=", 3],
    "unseen_mobilenetv3_build_cpu_s": ["<=", 6],
    "kernel_sum_spearman": [">=", 0.9],
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--library", type=Path, help="keep the library here, and fill it further")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as folder:
        figures = run(Path(folder), options.library or Path(folder) / "cache")
    show_figures(figures, TARGETS, options.json)


def run(folder: Path, cache: Path) -> dict[str, float]:
    """All figures; temporary files go to `folder`, compiled kernels and records to `cache`."""
    import os

    # Devices that are made from their settings alone use this one.
    os.environ["NETCARVE_CACHE"] = str(cache)
    from search.devices import add_device, device_space, show_device
    from search.kernels import default_library, library_timings, probed_device
    from search.store import Store
    from spaces import get_space

    with Store(f"sqlite:///{folder / 'store.db'}") as store:
        for name in (FIRST, SECOND):
            add_device(store, {"name": name})
        device = show_device(store, FIRST)
        figures = fill(store)
        space = device_space(store, device, get_space(SPACE))
        timings = library_timings(default_library(), device)
        latencies = {timing.kernel: timing.latency_us for timing in timings}
        with probed_device(device) as opened:
            configs = in_bands(space)
            builds, cpu = build(opened, space, [c for band in configs for c in band], folder)
            figures["first_subnet_build_cpu_s"] = cpu[0]
            figures["unseen_subnet_build_cpu_s"] = float(np.median(cpu[1:]))
            figures["unseen_mobilenetv3_build_cpu_s"] = stock_build_cpu_s(folder)
            figures |= rank(opened, space, configs, builds, latencies)
    return figures


def fill(store: Any) -> dict[str, float]:
    """Tune and time on the first device, then on the second for at most `SECOND_MINUTES`."""
    from search.kernels import build_kernels

    first = build_kernels(store, SPACE, FIRST, report).report
    second = build_kernels(store, SPACE, SECOND, report, SECOND_MINUTES).report
    changed = first.changed / first.tuned if first.tuned else float("nan")
    print(
        f"filled: {first.timed} kernels in {first.seconds / 60:.1f} minutes, of which "
        f"{first.compile_seconds / 60:.1f} compiling {first.compiled} candidates and "
        f"{first.time_seconds / 60:.1f} measuring; another tile than the rule's for "
        f"{100 * changed:.0f} %; {first.failed_candidates} candidates failed",
        flush=True,
    )
    return {
        "distinct_kernels": float(first.kernels),
        # A library that was filled before says nothing about the time.
        "fill_minutes": first.seconds / 60 if not first.known else float("nan"),
        "reused_choices_share": second.reused / second.timed if second.timed else float("nan"),
    }


def in_bands(space: SearchSpace) -> list[list[Config]]:
    """Random configs in bands of +-15 % multiply-accumulates around quantiles of the space's."""
    from predictors.features import cost_features, totals
    from spaces.population import sample, unique

    rng = np.random.default_rng(SEED)
    pool = unique(space, sample(space, POOL, rng))
    macs = np.exp(totals(cost_features(space, pool))[:, 0])
    bands = []
    for quantile in (np.arange(BANDS) + 0.5) / BANDS:
        centre = np.quantile(macs, quantile)
        inside = np.flatnonzero(np.abs(macs / centre - 1) <= HALF_WIDTH)
        chosen = rng.choice(inside, IN_A_BAND, replace=False)
        bands.append([space.from_indices(pool[row]) for row in chosen])
    return bands


def build(
    device: Device, space: SearchSpace, configs: Sequence[Config], folder: Path
) -> tuple[list[Build], list[float]]:
    """Builds of untrained, calibrated subnets, and the CPU seconds of each."""
    import torch

    from search.host_lock import HostLock
    from supernet import DataConfig, build_supernet, load_data, prepare, resize

    torch.manual_seed(SEED)
    supernet, data = build_supernet(space), load_data(DataConfig())
    builds, seconds = [], []
    with HostLock().shared("building the benchmark's subnets"):
        for number, config in enumerate(configs):
            images = resize(data.train.images[:64], config["resolution"])
            supernet.calibrate([(config, images)])
            subnet = prepare(supernet, config, data)
            sample = resize(data.selection.images[:8], subnet.resolution).numpy()
            before = cpu_seconds()
            builds.append(device.build(subnet, subnet.specs, folder / f"{number}", sample))
            seconds.append(cpu_seconds() - before)
            if builds[-1].compiled:
                print(f"subnet {number} compiled {builds[-1].compiled} kernels")
            report("building subnets", number + 1, len(configs))
    return builds, seconds


def stock_build_cpu_s(folder: Path) -> float:
    """CPU seconds of tracing and building MobileNetV3-small at 224 with a warm library.

    Its kernels are compiled by a first build.
    """
    from _stock_nets import STOCK_NETS

    from compilers.build import build_library
    from compilers.frontend import trace
    from compilers.fusion import fuse
    from compilers.targets import resolve_isa
    from search.host_lock import HostLock
    from search.kernels import default_library

    net = STOCK_NETS["mobilenetv3"]
    module, isa = net.module(), resolve_isa("native")
    seconds = 0.0
    with HostLock().shared("building the benchmark's networks"):
        for _ in range(2):
            before = cpu_seconds()
            graph = fuse(trace(module, net.input_shape))
            build_library(graph, isa, default_library(), folder / "stock.so")
            seconds = cpu_seconds() - before
    return seconds


def rank(
    device: Device,
    space: SearchSpace,
    bands: Sequence[Sequence[Config]],
    builds: Sequence[Build],
    latencies: dict[Any, float],
) -> dict[str, float]:
    """Spearman's correlation of measured latency with two predictions, mean over the bands."""
    from compilers.measurement import MeasurementConfig
    from predictors import spearman
    from search.host_lock import HostLock
    from search.kernel_latencies import SpaceKernelLatencies
    from spaces import cost

    features = SpaceKernelLatencies(space, latencies)
    found: dict[str, list[float]] = {"macs_spearman": [], "kernel_sum_spearman": []}
    ratios = []
    for number, band in enumerate(bands):
        with HostLock().exclusive("measuring the benchmark's subnets"):
            own = builds[number * IN_A_BAND : (number + 1) * IN_A_BAND]
            measured = np.array([m.median_ms for m in device.time(own, MeasurementConfig())])
        macs = np.array([cost(space.layer_specs(config)).macs for config in band], float)
        sums = features(np.stack([config.indices for config in band])).sum(axis=1)
        found["macs_spearman"].append(spearman(macs, measured))
        found["kernel_sum_spearman"].append(spearman(sums, measured))
        ratios.append(float(np.median(sums / measured)))
        print(
            f"band {number}: {measured.min():.3f} to {measured.max():.3f} ms; Spearman of MACs "
            f"{found['macs_spearman'][-1]:.3f}, of kernel sums "
            f"{found['kernel_sum_spearman'][-1]:.3f}; kernels take {100 * ratios[-1]:.0f} %",
            flush=True,
        )
    return {name: float(np.mean(values)) for name, values in found.items()}


def cpu_seconds() -> float:
    """CPU time so far of this process and its children, those that still run included."""
    import os

    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    ticks = os.sysconf("SC_CLK_TCK")
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / ticks
    return total


if __name__ == "__main__":
    main()
