from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from compilers.build import build_library, kernel_records
from compilers.built import Build
from compilers.errors import BuildError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_library import KernelLibrary
from compilers.runtime import Model
from compilers.targets import ISAS, host_isas, resolve_isa

# Everything here needs compiled subnets.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["fp32", "w8a8", "mixed"])
def test_a_binary_gives_the_logits_of_its_module(device, builds, subnets, images, name):
    # Every stored tensor was compared during the build already; see `check.LayerCheck`.
    logits = device.run(builds[name], images)
    with torch.inference_mode():
        expected = subnets[name](torch.from_numpy(images)).numpy()
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    assert difference <= builds[name].tolerance
    assert name != "fp32" or difference <= 1e-5
    assert logits.std(axis=0).min() > 0, "the logits do not depend on the input"


@pytest.mark.alone
def test_builds_are_deterministic_and_share_kernels(device, builds, subnets, tmp_path):
    again = device.build(subnets["w8a8"], subnets["w8a8"].specs, tmp_path / "again")
    assert again.library.read_bytes() == builds["w8a8"].library.read_bytes()
    assert again.compiled == 0
    assert builds["fp32"].compiled > 0
    assert again.seconds < 3


def test_a_build_loads_from_its_folder(builds):
    assert Build.load(builds["mixed"].folder) == builds["mixed"]


def test_a_damaged_build_record_is_an_error(builds, tmp_path):
    shutil.copytree(builds["fp32"].folder, tmp_path / "copy")
    (tmp_path / "copy" / "build.json").write_text("{}")
    with pytest.raises(BuildError, match=r"build\.json"):
        Build.load(tmp_path / "copy")


def test_only_the_calls_of_the_graph_are_linked(builds, subnets, images, cache):
    isa = resolve_isa("native")
    graph = fuse(trace(subnets["w8a8"], (1, *images.shape[1:])))
    data = builds["w8a8"].library.read_bytes()
    for record in kernel_records(graph, isa, KernelLibrary(cache / "kernels")):
        assert f"__tvm_ffi_{record.symbol}".encode() in data
    float_only = {r.symbol for r in builds["fp32"].kernels} - {
        r.symbol for r in builds["w8a8"].kernels
    }
    assert float_only
    assert not any(symbol.encode() in data for symbol in float_only)


def test_records_say_which_layers_compute_in_integers(builds, subnets):
    for name, build in builds.items():
        precision = {spec.site: spec.precision for spec in subnets[name].specs}
        layers = [r for r in build.kernels if r.kernel in ("Gemm", "Conv", "Depthwise")]
        assert len(layers) == 9
        for record in layers:
            integer = precision[record.site].weight is not None
            assert record.input_dtype == ("uint8" if integer else "float32"), record
    assert {r.output_dtype for r in builds["w8a8"].kernels} == {"uint8", "float32"}


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.parametrize("isa", host_isas())
def test_the_linked_code_of_integer_layers_is_integer_code(isa, cache, subnets, images, tmp_path):
    dot = "vpdpbusd" if ISAS[isa].int8_dot == "vpdpbusd" else "vpmaddwd"
    counts = {}
    for name in ("fp32", "w8a8"):
        graph = fuse(trace(subnets[name], (1, *images.shape[1:])))
        library = tmp_path / f"{name}.so"
        build_library(graph, ISAS[isa], KernelLibrary(Path(cache) / "kernels"), library)
        listing = subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", str(library)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        counts[name] = Counter(re.findall(r"\t(v\w+)", listing))
    assert counts["fp32"][dot] == 0
    integer_layers = sum(spec.precision.weight is not None for spec in subnets["w8a8"].specs)
    assert counts["w8a8"][dot] > 10 * integer_layers

    def multiply_adds(name):
        return sum(n for instruction, n in counts[name].items() if instruction.startswith("vfmadd"))

    # What is left are the stem, squeeze-and-excite and the gates of hardswish.
    assert multiply_adds("w8a8") < multiply_adds("fp32")


@pytest.mark.parametrize("tools", [("ld",), ("gcc",), ()])
def test_any_linker_will_do(tools, cache, subnets, images, tmp_path, monkeypatch, builds):
    # The compiled kernels are there already: only the link happens here.
    paths = {tool: shutil.which(tool) for tool in ("ld", "gcc")}
    if any(paths[tool] is None for tool in tools):
        pytest.skip(f"{tools} is not installed")
    monkeypatch.setattr(shutil, "which", lambda name: paths.get(name) if name in tools else None)
    isa = resolve_isa("native")
    graph = fuse(trace(subnets["fp32"], (1, *images.shape[1:])))
    library = tmp_path / "library.so"
    kernels = KernelLibrary(Path(cache) / "kernels")
    if not tools:
        with pytest.raises(BuildError, match="no linker"):
            build_library(graph, isa, kernels, library)
        return
    build_library(graph, isa, kernels, library)
    with torch.inference_mode():
        expected = subnets["fp32"](torch.from_numpy(images[:1])).numpy()
    np.testing.assert_allclose(Model(library)(images[:1]), expected, rtol=1e-4, atol=1e-5)
