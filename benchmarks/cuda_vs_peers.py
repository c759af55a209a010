"""The five stock networks on this machine's first NVIDIA GPU, against torch and ONNX Runtime.

Float32, batch 1, input and output in the GPU's memory; TF32, which torch and ONNX Runtime would use
by default, is off in both. Every runtime's output is checked against torch on the CPU. They are
timed interleaved in one process per network, by the host's clock around batches of calls that end
with the GPU idle; medians over five processes. A ratio whose process had an A/A ratio over 1.03 is
marked.

ONNX Runtime is left out where its CUDA provider is not installed. Without a GPU there are no
figures.

    python benchmarks/cuda_vs_peers.py [--only NET ...] [--processes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from _figures import show_figures
from _peers import ChildError, geomean, run_child

STOCK = ("mobilenetv3", "resnet18", "vit", "hybrid", "llama")
PROCESSES = 5
LARGEST_AA_RATIO = 1.03
MEASURED = "measured.json"
PREPARE_TIMEOUT, MEASURE_TIMEOUT = 1800.0, 600.0


def stock(name: str, folder: Path, processes: int) -> dict[str, float]:
    """Measure one network, print its lines, return each runtime's milliseconds; empty when it
    could not be measured."""
    script = str(Path(__file__).with_name("_cuda_peers.py"))
    rows: list[dict[str, float]] = []
    try:
        run_child(script, ["prepare", name, str(folder)], PREPARE_TIMEOUT)
        for _ in range(processes):
            run_child(script, ["measure", name, str(folder)], MEASURE_TIMEOUT)
            rows.append(json.loads((folder / MEASURED).read_text()))
    except ChildError as error:
        print(f"{name}: not measured: {error}", flush=True)
        return {}
    doubtful = sum(not 1 / LARGEST_AA_RATIO <= row["aa"] <= LARGEST_AA_RATIO for row in rows)
    doubt = f"   inconclusive: A/A over {LARGEST_AA_RATIO} in {doubtful} processes"
    print(f"\n{name}, ms per inference{doubt if doubtful else ''}")
    found = {label: median(row[label] for row in rows) for label in rows[0] if label != "aa"}
    for label, ms in found.items():
        print(f"  {label:<12} {ms:>9.3f}", flush=True)
    return found


def figures_of(nets: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over each peer's time, by network, and the geometric means over all networks."""
    figures = {}
    for peer in ("torch", "onnxruntime"):
        ratios = {net: ms["compiled"] / ms[peer] for net, ms in nets.items() if peer in ms}
        figures |= {f"{net}_vs_{peer}": ratio for net, ratio in ratios.items()}
        if len(ratios) == len(STOCK):
            figures[f"geomean_vs_{peer}"] = geomean(list(ratios.values()))
    return figures


def main() -> int:
    """Print the tables and, with --json, write the figures."""
    from compilers.cuda_driver import find_gpus
    from compilers.errors import DeviceError

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STOCK, metavar="NET")
    parser.add_argument("--processes", type=int, default=PROCESSES, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    nets: dict[str, dict[str, float]] = {}
    try:
        print(f"on {find_gpus()[0].name}", flush=True)
    except DeviceError as error:
        print(f"nothing measured: {error}")
        options.only = []
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        for name in STOCK if options.only is None else options.only:
            folder = Path(scratch) / name
            folder.mkdir()
            nets[name] = stock(name, folder, options.processes)
    show_figures(figures_of(nets), {}, options.json)
    return int(any(not measured for measured in nets.values()))


if __name__ == "__main__":
    sys.exit(main())
