"""Compiled networks against ONNX Runtime and other runtimes on this processor, batch 1.

Five stock networks (`_stock_nets.py`) in float32, in W8A8 after post-training quantisation and in
float32 on two threads, and ten random float32 subnets of the digits space. Each is checked against
torch, then timed interleaved with ONNX Runtime's float32 session in a process of its own, which is
pinned and holds the host lock; five processes each, medians over processes. On two threads every
runtime has a process of its own, and these take turns (`_turns.py`). When the A/A ratio is over
1.03 that is inconclusive and repeated, at most three times.

Printed beside that, from one process per network: ONNX Runtime on a static QDQ model (per channel,
calibrated on the same inputs), eager torch, torch.compile (needs a C++ compiler) and OpenVINO where
it is installed. A figure is given when everything that it is made of was measured.

    python benchmarks/compiled_vs_peers.py [--only NET ...] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _figures import show_figures
from _peers import Call, ChildError, geomean, measure_in_child, run_child
from _stock_builds import LIBRARIES
from _subnets import build_subnets
from _turns import measure_in_turns

if TYPE_CHECKING:
    from compilers.measurement import MeasurementConfig

STOCK = ("mobilenetv3", "resnet18", "vit", "hybrid", "llama")
DIGITS = "digits"
DIGITS_SUBNETS, DIGITS_SEED = 10, 30
PROCESSES, ATTEMPTS = 5, 4
ROUNDS, QUICK_ROUNDS = 16, 6
LARGEST_AA_RATIO = 1.03
COMPILE_TIMEOUT, PREPARE_TIMEOUT = 180.0, 900.0
TARGETS = {
    "fp32_stock_geomean": ["<=", 0.85],
    "fp32_stock_worst": ["<=", 1.0],
    "fp32_digits_geomean": ["<=", 0.7],
    "fp32_2t_geomean": ["<=", 0.9],
    "int8_resnet18": ["<=", 0.28],
    "int8_mobilenetv3": ["<=", 0.36],
    "int8_vit": ["<=", 0.50],
    "int8_geomean_vs_own_fp32": ["<=", 0.5],
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        processes: Processes per comparison on one thread, and repetitions on several.
        config: Of each process on one thread.
        rounds: Turns of each process on several threads.
        compile: Whether torch.compile is timed.
    """

    processes: int
    config: MeasurementConfig
    rounds: int
    compile: bool


@dataclass(slots=True)
class Comparison:
    """Median milliseconds of several calls, one row per process or repetition.

    Attributes:
        labels: Of the calls, in order.
        rows: `[processes, calls]`.
        inconclusive: Rows whose A/A ratio stayed over 1.03.
        disturbed: Largest share of a row's turns in which other processes disturbed.
    """

    labels: tuple[str, ...]
    rows: list[list[float]] = field(default_factory=list)
    inconclusive: int = 0
    disturbed: float = 0.0

    def ms(self, label: str) -> float:
        """Median over the processes."""
        column = self.labels.index(label)
        return median(row[column] for row in self.rows)

    def ratio(self, label: str, reference: str) -> float | None:
        """Median over the processes of one call's time over another's; None if one is missing."""
        if not {label, reference} <= set(self.labels) or not self.rows:
            return None
        a, b = self.labels.index(label), self.labels.index(reference)
        return median(row[a] / row[b] for row in self.rows)


def compare(calls: dict[str, Call], effort: Effort, threads: int = 1) -> Comparison:
    """Time `calls`, by label, several times."""
    result = Comparison(tuple(calls))
    for _ in range(effort.processes):
        for _ in range(ATTEMPTS):
            if threads == 1:
                measured = measure_in_child(list(calls.values()), effort.config)
                medians = [measurement.median_ms for measurement in measured]
                aa_ratio, disturbed = measured[0].aa_ratio, 0.0
            else:
                turns = measure_in_turns(list(calls.values()), threads, effort.rounds)
                medians, aa_ratio, disturbed = turns.medians, turns.aa_ratio, turns.disturbed
            if 1 / LARGEST_AA_RATIO <= aa_ratio <= LARGEST_AA_RATIO:
                break
        else:
            result.inconclusive += 1
        result.rows.append(medians)
        result.disturbed = max(result.disturbed, disturbed)
    return result


def prepare(name: str, folder: Path) -> None:
    """Write the forms of a stock network, each in a process of its own; report what fails."""
    script = str(Path(__file__).with_name("_stock_builds.py"))
    folder.mkdir()
    for form in ("onnx", *LIBRARIES):
        try:
            run_child(script, [name, form, str(folder)], timeout=PREPARE_TIMEOUT)
        except ChildError as error:
            print(f"{name} {form}: not built: {error}", flush=True)


def against_onnxruntime(
    folder: Path, effort: Effort, forms: Sequence[str], threads: int
) -> Comparison:
    """The libraries of `forms` that were built, beside ONNX Runtime's float32 session."""
    given, model = str(folder / "input.npy"), folder / "fp32.onnx"
    calls = {
        form: Call("compiled", str(folder / f"{form}.so"), given)
        for form in forms
        if (folder / f"{form}.so").exists()
    }
    if not calls or not model.exists():
        return Comparison(())
    calls["onnxruntime"] = Call("onnxruntime", str(model), given)
    return compare(calls, effort, threads)


def other_runtimes(name: str, folder: Path, effort: Effort) -> dict[str, float | str]:
    """Time over ONNX Runtime's float32 time, or why there is none."""
    given, model = str(folder / "input.npy"), str(folder / "fp32.onnx")
    reference = Call("onnxruntime", model, given)
    peers = {
        "ort_int8": Call("onnxruntime", str(folder / "int8.onnx"), given),
        "eager": Call("eager", name, given),
        "openvino": Call("openvino", model, given),
        "torch_compile": Call("torch_compile", name, given),
    }
    found: dict[str, float | str] = {}
    for label, call in peers.items():
        if label == "openvino" and find_spec("openvino") is None:
            found[label] = "not installed"
        elif label == "torch_compile" and not effort.compile:
            found[label] = "left out"
        else:
            try:
                theirs, base = measure_in_child([call, reference], effort.config, COMPILE_TIMEOUT)
                found[label] = theirs.median_ms / base.median_ms
            except ChildError as error:
                found[label] = str(error)
    return found


def digits(folder: Path, effort: Effort) -> list[float]:
    """Ours over ONNX Runtime's time of random subnets of the digits space."""
    from compilers import DeviceConfig, LocalCpu

    with LocalCpu(DeviceConfig(name="benchmark")) as device:
        subnets = build_subnets(device, folder, {"fp32": DIGITS_SUBNETS}, DIGITS_SEED)
    calls = {}
    for subnet in subnets:
        given = str(subnet.build.folder / "input.npy")
        calls[subnet.label] = Call("compiled", str(subnet.build.library), given)
        calls[f"{subnet.label} twin"] = Call("onnxruntime", str(subnet.onnx), given)
    result = compare(calls, effort)
    ratios = []
    print(f"\ndigits, µs per inference{_doubt(result)}")
    for subnet in subnets:
        ours, twin = subnet.label, f"{subnet.label} twin"
        ratios.append(result.ratio(ours, twin) or 0.0)
        print(
            f"{ours:<8} {result.ms(ours) * 1e3:>9.1f} {result.ms(twin) * 1e3:>9.1f} "
            f"{ratios[-1]:.3f}"
        )
    return ratios


def stock(name: str, folder: Path, effort: Effort) -> dict[str, float]:
    """Measure one stock network, print its lines, return its ratios by figure-like name."""
    prepare(name, folder)
    one = against_onnxruntime(folder, effort, ("fp32", "int8"), 1)
    two = against_onnxruntime(folder, effort, ("fp32_2t",), 2)
    ratios = {
        "fp32": one.ratio("fp32", "onnxruntime"),
        "int8": one.ratio("int8", "onnxruntime"),
        "int8_vs_own_fp32": one.ratio("int8", "fp32"),
        "fp32_2t": two.ratio("fp32_2t", "onnxruntime"),
    }
    print(f"\n{name}, ms per inference (over ONNX Runtime float32 on as many threads)")
    for result in (one, two):
        for label in result.labels:
            share = result.ratio(label, "onnxruntime")
            print(f"  {label:<14} {result.ms(label):>9.3f} {share:>7.3f}{_doubt(result)}")
    if (folder / "fp32.onnx").exists():
        for label, value in other_runtimes(name, folder, effort).items():
            shown = f"{value:>7.3f}" if isinstance(value, float) else f"  - ({value})"
            print(f"  {label:<14} {'':>9} {shown}", flush=True)
    return {label: ratio for label, ratio in ratios.items() if ratio is not None}


def figures_of(nets: dict[str, dict[str, float]], digits_ratios: list[float]) -> dict[str, float]:
    """The figures for which everything was measured."""

    def every(label: str) -> list[float]:
        found = [ratios[label] for ratios in nets.values() if label in ratios]
        return found if len(found) == len(STOCK) else []

    figures = {}
    if fp32 := every("fp32"):
        figures |= {"fp32_stock_geomean": geomean(fp32), "fp32_stock_worst": max(fp32)}
    if digits_ratios:
        figures["fp32_digits_geomean"] = geomean(digits_ratios)
    if threads := every("fp32_2t"):
        figures["fp32_2t_geomean"] = geomean(threads)
    for name in ("resnet18", "mobilenetv3", "vit"):
        if (ratio := nets.get(name, {}).get("int8")) is not None:
            figures[f"int8_{name}"] = ratio
    if integer := every("int8_vs_own_fp32"):
        figures["int8_geomean_vs_own_fp32"] = geomean(integer)
    return figures


def _doubt(result: Comparison) -> str:
    doubts = []
    if result.inconclusive:
        doubts.append(f"inconclusive: A/A over {LARGEST_AA_RATIO} in {result.inconclusive} rows")
    if result.disturbed:
        doubts.append(f"other processes ran in {result.disturbed:.0%} of the turns")
    return "".join(f"   {doubt}" for doubt in doubts)


def main() -> int:
    """Print the tables and, with --json, write the figures; 1 if one could not be measured."""
    from compilers.measurement import MeasurementConfig

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=(*STOCK, DIGITS), metavar="NET")
    parser.add_argument("--quick", action="store_true", help="one short process, no torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    effort = Effort(PROCESSES, MeasurementConfig(), ROUNDS, compile=True)
    if options.quick:
        short = MeasurementConfig(min_repeats=15, max_repeats=30)
        effort = Effort(1, short, QUICK_ROUNDS, compile=False)
    chosen = options.only or [*STOCK, DIGITS]
    nets: dict[str, dict[str, float]] = {}
    digits_ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        for name in chosen:
            if name == DIGITS:
                digits_ratios = digits(Path(scratch) / DIGITS, effort)
            else:
                nets[name] = stock(name, Path(scratch) / name, effort)
    figures = figures_of(nets, digits_ratios)
    show_figures(figures, TARGETS, options.json)
    missing = sorted(TARGETS.keys() - figures.keys())
    if missing:
        print(f"not measured: {', '.join(missing)}")
    return int(bool(missing) and options.only is None)


if __name__ == "__main__":
    sys.exit(main())
