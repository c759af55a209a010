"""A subnet whose layers have weights of 2 to 8 bits, weight-only ones among them, to its bundle."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from compilers.bundle import BundleInfo, verify_bundle, write_bundle
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernels import Conv, Depthwise, Gemm, WeightOnlyGemm
from compilers.onnx_export import run_onnx
from compilers.targets import resolve_isa
from spaces.layer_spec import Operator
from spaces.quant_scheme import precision

# Everything here needs compiled subnets.
pytestmark = pytest.mark.slow

NAMES = {
    "stem": "fp32",
    "a.expand": "w4a8",
    "a.depthwise": "w3a8",
    "a.project": "w8a8",
    "b.expand": "w4a8",
    "b.depthwise": "w2a8",
    "b.project": "w5a8",
    "head": "fp32",
    "classifier": "w4a32g32",
}


@pytest.fixture(scope="module")
def subnet(subnets, make_subnet):
    specs = [
        replace(spec, precision=precision(NAMES[spec.site])) if spec.site in NAMES else spec
        for spec in subnets["w8a8"].specs
    ]
    # The first convolution of several taps in 4 bits: the projection, as a 3 x 3 window.
    place = next(i for i, spec in enumerate(specs) if spec.site == "b.project")
    specs[place] = replace(specs[place], kernel=3, precision=precision("w4a8"))
    return make_subnet(tuple(specs), seed=3)


@pytest.fixture(scope="module")
def graph(subnet, images):
    return fuse(trace(subnet, (1, *images.shape[1:])))


@pytest.fixture(scope="module")
def build(device, subnet, tmp_path_factory):
    # Compares every stored tensor with the module's operators; see `check.LayerCheck`.
    return device.build(subnet, subnet.specs, tmp_path_factory.mktemp("low") / "build")


def test_kernels_hold_at_most_4_bits_where_4_bits_are_stored(graph, subnet):
    specs = {spec.site: spec for spec in subnet.specs}
    kernels = {call.site: call.kernel for call in graph.calls}
    layers = {s: k for s, k in kernels.items() if isinstance(k, (Gemm, Conv, Depthwise))}
    assert len(layers) == 8
    for site, kernel in layers.items():
        weight = specs[site].precision.weight
        narrow = weight is not None and weight.bits <= 4
        assert kernel.weight_bits == (4 if narrow else 8), site
        assert (kernel.input_dtype == "uint8") == specs[site].precision.integer, site
    assert kernels["classifier"] == WeightOnlyGemm(1, 64, 10, 4, 32)
    assert isinstance(kernels["b.project"], Conv)


def test_the_library_holds_the_packed_weights_and_not_the_wide_ones(build, graph):
    isa, library = resolve_isa("native"), build.library.read_bytes()
    for call in graph.calls:
        if not isinstance(call.kernel, (Gemm, Conv, Depthwise)) or call.kernel.weight_bits != 4:
            continue
        packed = call.kernel.constants(isa, call.params)[0]
        wide = replace(call.kernel, weight_bits=8).constants(isa, call.params)[0]
        assert packed.tobytes() in library, call.site
        assert wide.tobytes() not in library, call.site
        pairs = -(-(wide.size // wide.shape[-1]) // 2)
        assert packed.nbytes == pairs * wide.shape[-1], call.site


def test_the_binary_labels_images_as_its_module_does(device, build, subnet):
    images = np.random.default_rng(1).random((400, 1, 12, 12), dtype=np.float32)
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(images)).numpy()
    logits = device.run(build, images)
    assert logits.std(axis=0).min() > 0, "the logits do not depend on the input"
    assert (logits.argmax(axis=1) != expected.argmax(axis=1)).mean() <= 0.002


def test_its_bundle_is_verified_and_declares_what_executes(device, build, tmp_path):
    bundle = write_bundle(tmp_path / "b", build, device, BundleInfo({}, "handmade"))
    assert verify_bundle(bundle, device, measure=False).difference <= 1e-4
    manifest = json.loads((bundle / "manifest.json").read_text())
    schemes = {layer["site"]: layer["precision"] for layer in manifest["layers"]}
    assert (schemes["a.depthwise"]["weight"]["bits"]) == 3
    assert (schemes["a.depthwise"]["weight"]["executed_bits"]) == 8
    assert (schemes["classifier"]["weight"]["executed_bits"]) == 32
    assert {r["kernel"] for r in manifest["kernels"] if r["site"] == "classifier"} == {
        "WeightOnlyGemm"
    }


def test_its_onnx_twin_holds_int4_where_a_layer_is_weight_only(device, build, subnet, tmp_path):
    path = tmp_path / "model.onnx"
    device.export_onnx(build, path)
    model = onnx.load(path)
    types = {i.data_type for i in model.graph.initializer if i.name.endswith("weight.integers")}
    assert onnx.TensorProto.INT4 in types
    images = np.random.default_rng(2).random((8, 1, 12, 12), dtype=np.float32)
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(images)).numpy()
    difference = np.abs(run_onnx(path, images) - expected).max() / np.abs(expected).max()
    assert difference <= build.tolerance


def test_a_linear_layer_of_few_bits_is_a_gemm_on_nibbles(subnets, make_subnet, images):
    specs = [
        replace(spec, precision=precision("w4a8")) if spec.operator is Operator.LINEAR else spec
        for spec in subnets["w8a8"].specs
    ]
    calls = fuse(trace(make_subnet(tuple(specs)), (1, *images.shape[1:]))).calls
    kernel = next(call.kernel for call in calls if call.site == "classifier")
    assert isinstance(kernel, Gemm)
    assert (kernel.input_dtype, kernel.weight_bits) == ("uint8", 4)
