"""Compiled subnets against ONNX Runtime on the same ONNX models: one thread, batch 1.

Five random float32 and five random W8A8 subnets of `mobilenetv3_digits` (untrained, calibrated on
digits) are compiled, exported, checked, and timed interleaved in a process of its own that is
pinned to one processor and holds the host lock, so that no search disturbs it. ONNX Runtime gets
its default optimisations, one thread, a fixed batch and bound input and output.

A quantised model runs in ONNX Runtime in three ways, and each subnet is compared with the fastest:
as exported; with its QDQ handling switched off, so that weights are dequantised once; and with
every layer's output quantised as well, which is the form that all its integer kernels want. The
last one is a different function (the subnet has no quantisation between a convolution and its
hardswish): only its time is used.

    python benchmarks/compiled_vs_onnxruntime.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from _figures import show_figures

SPACE = "mobilenetv3_digits"
SUBNETS = 5
SEED = 20
TARGETS = {"fp32_geomean": ["<=", 1.0], "int8_geomean": ["<=", 1.0]}


def prepare(folder: Path) -> list[dict[str, Any]]:
    """Build and export the subnets; one entry per subnet for `measure`."""
    import torch

    from compilers import DeviceConfig, LocalCpu
    from search.host_lock import HostLock
    from spaces import get_space
    from spaces.population import sample
    from supernet import DataConfig, build_supernet, load_data, resize
    from supernet import prepare as extract

    torch.manual_seed(SEED)
    space = get_space(SPACE)
    supernet, data = build_supernet(space), load_data(DataConfig())
    rng = np.random.default_rng(SEED)
    entries = []
    compiling = HostLock().shared("building the benchmark's subnets", on_wait=_waiting)
    with compiling, LocalCpu(DeviceConfig(name="benchmark")) as device:
        for name, bits in (("fp32", 32), ("int8", 8)):
            restricted = space.restrict(choices={"*.w_bits": [bits]})
            for index, row in enumerate(sample(restricted, SUBNETS, rng)):
                config = restricted.from_indices(row)
                images = data.train.images[:128]
                supernet.calibrate([(config, resize(images, config["resolution"]))])
                subnet = extract(supernet, config, data)
                sample_input = resize(data.selection.images[:8], subnet.resolution).numpy()
                label = f"{name}-{index}"
                build = device.build(subnet, subnet.specs, folder / label, sample_input)
                difference = device.export_onnx(build, folder / f"{label}.onnx")
                print(
                    f"built {label}: resolution {subnet.resolution}, {len(build.kernels)} kernels, "
                    f"{build.seconds:.1f} s, differs {build.difference:.0e} (ONNX {difference:.0e})"
                )
                entries.append(
                    {
                        "label": label,
                        "precision": name,
                        "library": str(build.library),
                        "onnx": str(folder / f"{label}.onnx"),
                        "input": str(build.folder / "input.npy"),
                    }
                )
    return entries


def fully_quantised(path: Path) -> Path:
    """A copy of a QDQ model in which every output of a quantised layer is quantised too."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    scale = numpy_helper.from_array(np.array(0.05, np.float32), "full.scale")
    zero = numpy_helper.from_array(np.array(128, np.uint8), "full.zero")
    graph.initializer.extend([scale, zero])
    nodes = []
    for node in list(graph.node):
        nodes.append(node)
        quantised = node.op_type in ("Conv", "Gemm") and node.input[0].endswith(".x")
        following = readers.get(node.output[0], []) if quantised else []
        if len(following) == 1 and following[0].op_type == "Relu":
            following = readers[following[0].output[0]]
        if not quantised or node.output[0] in outputs:
            continue
        if any(reader.op_type == "QuantizeLinear" for reader in following):
            continue
        name = node.output[0]
        node.output[0] = f"{name}.raw"
        constants = [scale.name, zero.name]
        nodes += [
            helper.make_node("QuantizeLinear", [f"{name}.raw", *constants], [f"{name}.u8"]),
            helper.make_node("DequantizeLinear", [f"{name}.u8", *constants], [name]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    target = path.with_suffix(".full.onnx")
    onnx.save(model, target)
    return target


def measure(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time every library and its ONNX twin interleaved; run in a process without torch."""
    from compilers.measurement import MeasurementConfig, measure_interleaved
    from compilers.runtime import Model

    functions: list[Callable[[], object]] = []
    spans: list[range] = []
    for entry in entries:
        x = np.load(entry["input"])[:1]
        start = len(functions)
        functions += [_compiled(Model(Path(entry["library"])), x), _onnxruntime(entry["onnx"], x)]
        if entry["precision"] == "int8":
            functions.append(_onnxruntime(entry["onnx"], x, {"session.disable_quant_qdq": "1"}))
            functions.append(_onnxruntime(str(fully_quantised(Path(entry["onnx"]))), x))
        spans.append(range(start, len(functions)))
    twin = _compiled(Model(Path(entries[0]["library"])), np.load(entries[0]["input"])[:1])
    config = MeasurementConfig(min_repeats=100, max_repeats=600)
    measured = measure_interleaved(functions, config, twin)
    return [
        {
            **entry,
            "compiled": measured[span[0]].to_json(),
            "onnxruntime": [measured[index].to_json() for index in span[1:]],
        }
        for entry, span in zip(entries, spans, strict=True)
    ]


def _compiled(model: Any, x: Any) -> Callable[[], object]:
    tensor, main = model.tensor(x), model.main
    return lambda: main(tensor)


def _onnxruntime(path: str, x: Any, settings: dict[str, str] | None = None) -> Callable[[], object]:
    from compilers.onnx_export import ort_session

    session = ort_session(Path(path), batch=1, settings=settings)
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


def _child(folder: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given, returned = folder / "entries.json", folder / "measured.json"
    given.write_text(json.dumps(entries))
    root = str(Path(__file__).resolve().parent.parent)
    subprocess.run(
        [sys.executable, __file__, "--measure", str(given), str(returned)],
        check=True,
        env={**os.environ, "TVM_USE_RUNTIME_LIB": "1", "PYTHONPATH": root},
    )
    return json.loads(returned.read_text())


def _measure_files(given: str, returned: str) -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from search.host_lock import HostLock

    entries = json.loads(Path(given).read_text())
    with HostLock().exclusive("benchmark against ONNX Runtime", on_wait=_waiting):
        rows = measure(entries)
    Path(returned).write_text(json.dumps(rows))


def _waiting(holders: Any, seconds: float) -> None:
    print(f"waiting for {', '.join(map(str, holders))}, {seconds:.0f} s so far", file=sys.stderr)


def geomean(values: list[float]) -> float:
    """The geometric mean of positive numbers."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    """Print the table and, with --json, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure_files(*options.measure)
        return
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        rows = _child(Path(scratch), prepare(Path(scratch)))
    ratios: dict[str, list[float]] = {"fp32": [], "int8": []}
    print("\nMicroseconds per inference, median (p10..p90 of the two compared)")
    print(f"{'subnet':<8} {'netcarve':>9} {'ONNX Runtime':>22} {'ratio':>7}")
    for row in rows:
        ours = row["compiled"]
        theirs = min(row["onnxruntime"], key=lambda measured: measured["median_ms"])
        ways = " / ".join(f"{way['median_ms'] * 1e3:.1f}" for way in row["onnxruntime"])
        ratio = ours["median_ms"] / theirs["median_ms"]
        ratios[row["precision"]].append(ratio)
        print(
            f"{row['label']:<8} {ours['median_ms'] * 1e3:>9.1f} {ways:>22} {ratio:>7.3f}"
            f"   ({ours['p10_ms'] * 1e3:.1f}..{ours['p90_ms'] * 1e3:.1f},"
            f" {theirs['p10_ms'] * 1e3:.1f}..{theirs['p90_ms'] * 1e3:.1f})"
        )
    figures = {f"{name}_geomean": geomean(values) for name, values in ratios.items()}
    figures["aa_ratio"] = rows[0]["compiled"]["aa_ratio"]
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
