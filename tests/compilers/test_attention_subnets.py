"""Subnets with attention, from the module to the bundle."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from compilers.bundle import BundleInfo, verify_bundle, write_bundle
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.onnx_export import run_onnx
from compilers.profile import kernel_macs, profiled_layers
from spaces.cost import cost, layer_cost
from spaces.layer_spec import Activation, Operator
from tests.compilers.attention_specs import HEADS, PRECISIONS, SIZE, attention_specs


@pytest.fixture(scope="module")
def subnets(make_subnet):
    found = {name: make_subnet(attention_specs(name), seed=2) for name in PRECISIONS}
    for subnet in found.values():
        assert subnet.get_submodule("s.block0.attention.core.position").bias.std() > 0.1
    return found


@pytest.mark.parametrize("name", PRECISIONS)
def test_attention_is_one_kernel_that_reads_what_qkv_wrote(subnets, name):
    calls = fuse(trace(subnets[name], (1, 1, 2 * SIZE, 2 * SIZE))).calls
    kinds = Counter(type(call.kernel).__name__ for call in calls)
    # The values' columns are copied for their convolution.
    assert kinds == {
        "Conv": 1, "Gemm": 5, "Copy": 1, "Depthwise": 1, "Attention": 1, "GlobalPool": 1
    }  # fmt: skip
    by_site = {call.site: call for call in calls if type(call.kernel).__name__ != "Copy"}
    core, qkv = by_site["s.block0.attention.core"], by_site["s.block0.attention.qkv"]
    assert core.inputs[:2] == (qkv.output, qkv.output)
    assert core.inputs[2] == by_site["s.block0.attention.core.depthwise"].output
    assert core.kernel.activation is Activation.HARDSWISH
    assert core.kernel.output_dtype == ("uint8" if name == "w8a8" else "float32")
    assert (core.kernel.head_dim, core.kernel.value_dim, core.kernel.bias) == (16, 48, True)
    integer = {call.site for call in calls if call.kernel.input_dtype == "uint8"}
    layers = {spec.site for spec in subnets[name].specs if spec.precision.integer}
    assert layers <= integer


def test_every_kernel_call_belongs_to_a_layer_of_the_profile(subnets):
    """And the multiply-accumulates of attention are shared out, not counted twice."""
    layers = profiled_layers(subnets["fp32"].specs)
    calls = fuse(trace(subnets["fp32"], (1, 1, 2 * SIZE, 2 * SIZE))).calls
    found = [
        (type(call.kernel).__name__, layers.get(call.site))
        for call in calls
        if type(call.kernel).__name__ != "Copy"
    ]
    assert all(layer is not None for _, layer in found)
    assert sum(kernel_macs(layer) for _, layer in found) == cost(subnets["fp32"].specs).macs
    core = next(s for s in subnets["fp32"].specs if s.operator is Operator.ATTENTION)
    assert kernel_macs(core) == HEADS * SIZE**4 * (16 + 48) < layer_cost(core).macs


@pytest.fixture(scope="module")
def builds(device, subnets, tmp_path_factory):
    # Compares every stored tensor with the module's operators; see `check.LayerCheck`.
    folder = tmp_path_factory.mktemp("attention")
    return {name: device.build(s, s.specs, folder / name) for name, s in subnets.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECISIONS)
def test_the_binary_computes_what_the_module_computes(device, builds, subnets, name):
    images = np.random.default_rng(1).random((100, 1, 2 * SIZE, 2 * SIZE), dtype=np.float32)
    with torch.inference_mode():
        expected = subnets[name](torch.from_numpy(images)).numpy()
    logits = device.run(builds[name], images)
    assert logits.std(axis=0).min() > 0, "the logits do not depend on the input"
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    assert difference <= builds[name].tolerance
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECISIONS)
def test_its_bundle_is_verified_and_its_onnx_twin_agrees(device, builds, subnets, name, tmp_path):
    bundle = write_bundle(tmp_path / "b", builds[name], device, BundleInfo({}, "handmade"))
    assert verify_bundle(bundle, device, measure=False).difference <= 1e-4
    manifest = json.loads((bundle / "manifest.json").read_text())
    core = next(x for x in manifest["layers"] if x["operator"] == "attention")
    assert (core["heads"], core["precision"]["weight"]) == (HEADS, None)
    assert manifest["cost"]["macs"] == cost(subnets[name].specs).macs
    images = np.random.default_rng(2).random((8, 1, 2 * SIZE, 2 * SIZE), dtype=np.float32)
    with torch.inference_mode():
        expected = subnets[name](torch.from_numpy(images)).numpy()
    found = run_onnx(bundle / "model.onnx", images)
    assert np.abs(found - expected).max() / np.abs(expected).max() <= builds[name].tolerance
