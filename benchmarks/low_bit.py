"""Kernels on weights of few bits against the same products on wide weights.

- `w4_gemv_speedup`: one row times an 8192 x 8192 matrix, int4 weights with one scale per 64 inputs,
  over our float32 Gemm of that size, with 1 and with 2 threads; the smaller one counts. ONNX
  Runtime's MatMul in float32 stands beside.
- `w4a8_over_w8a8`: the integer Gemm on 4-bit weights over that on 8-bit weights, one thread, the
  geometric mean over several sizes.

Kernels of one figure are timed interleaved in a process of their own that holds the host lock; the
A/A ratio of its first kernel says what the set-up gets wrong.

    python benchmarks/low_bit.py [--json FILE]
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
from _peers import waiting

from compilers.kernels import Gemm, WeightOnlyGemm
from compilers.kernels.base import Kernel, LayerParams, QParams
from compilers.runtime import use_threads

SIZE = 8192
GROUP = 64
THREADS = (1, 2)
PRODUCTS = [
    (49, 96, 576), (49, 576, 96), (49, 1024, 1024), (196, 96, 576), (196, 576, 96),
    (196, 512, 512), (784, 96, 96), (784, 256, 1024), (784, 1024, 256),
]  # fmt: skip
"""(m, k, n) of the integer products."""

TARGETS = {"w4_gemv_speedup": [">=", 4.0], "w4a8_over_w8a8": ["<=", 1.15]}
_QPARAMS = QParams(0.02, 113)


def _compiled(kernel: Kernel, params: LayerParams, threads: int) -> Callable[[], object]:
    """A call of one kernel on random input."""
    import tvm

    from compilers.kernel_library import compile_kernel
    from compilers.targets import resolve_isa

    isa = resolve_isa("native").with_threads(threads)
    function = compile_kernel(kernel, isa)[kernel.symbol(isa)]
    rng = np.random.default_rng(0)
    if kernel.input_dtype == "uint8":
        x: Any = rng.integers(0, 256, kernel.input_shape).astype(np.uint8)
    else:
        x = rng.standard_normal(kernel.input_shape).astype(np.float32)
    out = np.zeros(kernel.output_shape, kernel.output_dtype)
    arrays = (x, *kernel.constants(isa, params), out)
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays]
    return lambda: function(*tensors)


def _onnxruntime(weight: Any, threads: int) -> Callable[[], object]:
    """A call of MatMul in ONNX Runtime, input and output bound.

    Its threads beside the calling one are bound to the last processors.
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    size = len(weight)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its waiting threads would take the processors from the kernels beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads > 1:
        # It counts processors from one.
        others = ";".join(str(cpu + 1) for cpu in sorted(os.sched_getaffinity(0))[1:])
        options.add_session_config_entry("session.intra_op_thread_affinities", others)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ones((1, size), np.float32))
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def gemv(threads: int) -> tuple[list[Callable[[], object]], Callable[[], object]]:
    """float32, int4 and ONNX Runtime's float32; and a second instance of the first."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    codes = rng.integers(-7, 8, (SIZE, SIZE), dtype=np.int8)
    bias, scale = np.zeros(SIZE, np.float32), np.full((SIZE, SIZE // GROUP), 0.1, np.float32)
    # It must find all processors: then this thread is bound to the first.
    other = _onnxruntime(weight, threads)
    use_threads(threads)
    wide = _compiled(Gemm(1, SIZE, SIZE), LayerParams(weight, bias), threads)
    narrow = WeightOnlyGemm(1, SIZE, SIZE, 4, GROUP)
    params = LayerParams(codes, bias, scale)
    return [wide, _compiled(narrow, params, threads), other], wide


def products() -> tuple[list[Callable[[], object]], Callable[[], object]]:
    """W8A8 and W4A8 of every size in turn; and a second instance of the first."""
    rng = np.random.default_rng(0)

    def function(m: int, k: int, n: int, bits: int) -> Callable[[], object]:
        kernel = Gemm(m, k, n, "uint8", output_dtype="uint8", weight_bits=bits)
        params = LayerParams(
            rng.integers(-7, 8, (n, k)).astype(np.int8),
            np.zeros(n, np.int32),
            np.full(n, 1e-3, np.float32),
            input=_QPARAMS,
            output=_QPARAMS,
        )
        return _compiled(kernel, params, 1)

    return [function(*size, bits) for size in PRODUCTS for bits in (8, 4)], function(
        *PRODUCTS[0], 8
    )


def _measure(what: str, threads: int, target: Path) -> None:
    from compilers.measurement import MeasurementConfig, measure_interleaved
    from search.host_lock import HostLock

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    functions, twin = gemv(threads) if what == "gemv" else products()
    config = MeasurementConfig(min_repeats=30, max_repeats=120)
    with HostLock().exclusive("benchmark of low-bit kernels", on_wait=waiting):
        measured = measure_interleaved(functions, config, twin)
    target.write_text(json.dumps([one.to_json() for one in measured]))


def _child(what: str, threads: int) -> list[dict[str, Any]]:
    root = str(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        target = Path(scratch) / "measured.json"
        subprocess.run(
            [sys.executable, __file__, "--measure", what, str(threads), str(target)],
            check=True,
            env={**os.environ, "TVM_NUM_THREADS": str(threads), "PYTHONPATH": root},
        )
        found: list[dict[str, Any]] = json.loads(target.read_text())
    return found


def main() -> None:
    """Print tables; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, threads, target = options.measure
        _measure(what, int(threads), Path(target))
        return
    speedups, figures = [], {}
    print(f"1 x {SIZE} x {SIZE}, ms (median)")
    for threads in THREADS:
        rows = _child("gemv", threads)
        wide, narrow, other = (row["median_ms"] for row in rows)
        speedups.append(wide / narrow)
        figures[f"gemv_aa_ratio_{threads}t"] = rows[0]["aa_ratio"]
        print(
            f"{threads} thread(s): float32 {wide:.2f}, int4 {narrow:.2f}, "
            f"ONNX Runtime float32 {other:.2f}; speed-up {wide / narrow:.2f}"
        )
    rows = _child("products", 1)
    ratios = []
    print("\nm x k x n, us (median): W8A8, W4A8")
    for size, wide_row, narrow_row in zip(PRODUCTS, rows[::2], rows[1::2], strict=True):
        ratios.append(narrow_row["median_ms"] / wide_row["median_ms"])
        times = f"{wide_row['median_ms'] * 1e3:9.1f} {narrow_row['median_ms'] * 1e3:9.1f}"
        print(f"{' x '.join(map(str, size)):>18} {times} {ratios[-1]:7.3f}")
    figures["products_aa_ratio"] = rows[0]["aa_ratio"]
    figures["w4_gemv_speedup"] = min(speedups)
    figures["w4a8_over_w8a8"] = exp(sum(map(log, ratios)) / len(ratios))
    figures["w4a8_over_w8a8_worst"] = max(ratios)
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
