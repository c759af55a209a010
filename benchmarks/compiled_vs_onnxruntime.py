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
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _figures import show_figures
from _peers import Call, geomean, measure_in_child
from _subnets import BuiltSubnet, build_subnets

SUBNETS = 5
SEED = 20
TARGETS = {"fp32_geomean": ["<=", 1.0], "int8_geomean": ["<=", 1.0]}


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


def measure(subnets: list[BuiltSubnet]) -> list[dict[str, Any]]:
    """Time every library and its ONNX twin interleaved, in one child process."""
    from compilers.measurement import MeasurementConfig

    calls: list[Call] = []
    spans: list[range] = []
    for subnet in subnets:
        start, given = len(calls), str(subnet.build.folder / "input.npy")
        calls.append(Call("compiled", str(subnet.build.library), given))
        calls.append(Call("onnxruntime", str(subnet.onnx), given))
        if subnet.precision == "int8":
            floating = {"session.disable_quant_qdq": "1"}
            calls.append(Call("onnxruntime", str(subnet.onnx), given, floating))
            calls.append(Call("onnxruntime", str(fully_quantised(subnet.onnx)), given))
        spans.append(range(start, len(calls)))
    measured = measure_in_child(calls, MeasurementConfig(min_repeats=100, max_repeats=600))
    return [
        {
            "label": subnet.label,
            "precision": subnet.precision,
            "compiled": measured[span[0]].to_json(),
            "onnxruntime": [measured[index].to_json() for index in span[1:]],
        }
        for subnet, span in zip(subnets, spans, strict=True)
    ]


def main() -> None:
    """Print the table and, with --json, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    from compilers import DeviceConfig, LocalCpu

    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        with LocalCpu(DeviceConfig(name="benchmark")) as device:
            counts = {"fp32": SUBNETS, "int8": SUBNETS}
            subnets = build_subnets(device, Path(scratch), counts, SEED)
        rows = measure(subnets)
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
