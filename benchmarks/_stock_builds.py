"""Makes what a comparison on one stock network times; run as a script, one form per process.

    python benchmarks/_stock_builds.py NET FORM FOLDER

Forms: `onnx` (the models `fp32.onnx` and `int8.onnx` of ONNX Runtime and the sample `input.npy`),
`fp32`, `int8` and `fp32_2t` (a compiled library `FORM.so`, checked against torch).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION_INPUTS = 8
CALIBRATION_SEED, SAMPLE_SEED = 100, 200
LIBRARIES = {"fp32": 1, "int8": 1, "fp32_2t": 2}
"""Threads of the compiled forms."""


def export(name: str, folder: Path) -> None:
    """Write the sample and the ONNX models, checked against torch."""
    import logging

    import torch
    from _stock_nets import STOCK_NETS
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    from compilers.check import FLOAT_TOLERANCE, compare
    from compilers.onnx_export import ort_session

    net = STOCK_NETS[name]
    module, x = net.module(), net.sample(SAMPLE_SEED)
    np.save(folder / "input.npy", x.numpy())
    logging.disable(logging.WARNING)
    model = folder / "fp32.onnx"
    torch.onnx.export(
        module, (x,), str(model), dynamo=True, external_data=False, verbose=False, opset_version=18
    )
    logging.disable(logging.NOTSET)
    session = ort_session(model)
    given = session.get_inputs()[0].name
    with torch.inference_mode():
        expected = module(x).numpy()
    compare(session.run(None, {given: x.numpy()})[0], expected, FLOAT_TOLERANCE, model.name)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = iter(_calibration_inputs(net))

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.samples, None)
            return None if sample is None else {given: sample.numpy()}

    quantize_static(
        str(model),
        str(folder / "int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    ort_session(folder / "int8.onnx").run(None, {given: x.numpy()})


def compile_library(name: str, form: str, path: Path) -> None:
    """Compile a network and check the library's output against torch.

    Raises:
        CompilerError: An operator has no kernel, or the output differs.
    """
    import torch
    from _stock_nets import STOCK_NETS

    from compilers.build import build_library
    from compilers.check import FLOAT_TOLERANCE, INTEGER_TOLERANCE, compare
    from compilers.frontend import trace
    from compilers.fusion import fuse
    from compilers.kernel_library import KernelLibrary
    from compilers.runtime import Model
    from compilers.targets import resolve_isa
    from spaces.cache import default_cache
    from supernet.post_training import quantize_post_training

    torch.set_num_threads(1)
    net = STOCK_NETS[name]
    module, x = net.module(), net.sample(SAMPLE_SEED)
    if form == "int8":
        module = quantize_post_training(module, _calibration_inputs(net))
    start = time.perf_counter()
    graph = fuse(trace(module, tuple(x.shape), str(x.dtype).removeprefix("torch.")))
    isa = resolve_isa("native").with_threads(LIBRARIES[form])
    build_library(graph, isa, KernelLibrary(default_cache() / "kernels"), path)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        expected = module(x).numpy()
    allowed = INTEGER_TOLERANCE if form == "int8" else FLOAT_TOLERANCE
    model = Model(path, str(x.numpy().dtype), expected.shape)
    difference = compare(model(x.numpy()), expected, allowed, f"{name} {form}")
    print(
        f"built {name} {form}: {len(graph.calls)} kernels, {seconds:.1f} s, "
        f"differs {difference:.0e}",
        flush=True,
    )


def _calibration_inputs(net: Any) -> list[Any]:
    return [net.sample(CALIBRATION_SEED + index) for index in range(CALIBRATION_INPUTS)]


def _main(name: str, form: str, folder: str) -> None:
    from _peers import waiting

    from search.host_lock import HostLock

    with HostLock().shared("building the benchmark's networks", on_wait=waiting):
        if form == "onnx":
            export(name, Path(folder))
            return
        # Complete or absent: a library whose check failed must not be timed.
        unchecked = Path(folder) / f"{form}.unchecked.so"
        compile_library(name, form, unchecked)
        unchecked.rename(Path(folder) / f"{form}.so")


if __name__ == "__main__":
    _main(*sys.argv[1:])
