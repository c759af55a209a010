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

SUBNETS = {**{name: (name, "batch") for name in PRECISIONS}, "layer_norm": ("w8a8", "layer")}
"""Precision and normalisation of each."""


@pytest.fixture(scope="module")
def subnets(make_subnet):
    found = {
        name: make_subnet(attention_specs(*arguments), seed=2)
        for name, arguments in SUBNETS.items()
    }
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


def test_a_layer_norm_writes_what_is_quantised_behind_it_and_moves_nothing(subnets):
    calls = fuse(trace(subnets["layer_norm"], (1, 1, 2 * SIZE, 2 * SIZE))).calls
    kinds = Counter(type(call.kernel).__name__ for call in calls)
    assert kinds == {
        "Conv": 1, "Gemm": 5, "Copy": 1, "Depthwise": 1, "Attention": 1, "GlobalPool": 1, "Norm": 2
    }  # fmt: skip
    by_site = {call.site: call for call in calls}
    before = "stem"
    for block, reader in (("s.block0.attention", "qkv"), ("s.block0.mlp", "expand")):
        norm, project = by_site[f"{block}.norm"], by_site[f"{block}.project"]
        assert norm.inputs == (by_site[before].output,)
        assert (norm.kernel.input_dtype, norm.kernel.output_dtype) == ("float32", "uint8")
        assert by_site[f"{block}.{reader}"].inputs == (norm.output,)
        # The shortcut is what the norm reads, not what it writes.
        assert project.inputs[1] == by_site[before].output
        before = f"{block}.project"


@pytest.mark.parametrize("name", ["fp32", "layer_norm"])
def test_every_kernel_call_belongs_to_a_layer_of_the_profile(subnets, name):
    """And the multiply-accumulates of attention are shared out, not counted twice."""
    subnet = subnets[name]
    layers = profiled_layers(subnet.specs)
    calls = fuse(trace(subnet, (1, 1, 2 * SIZE, 2 * SIZE))).calls
    found = [
        (type(call.kernel).__name__, layers.get(call.site))
        for call in calls
        if type(call.kernel).__name__ != "Copy"
    ]
    assert all(layer is not None for _, layer in found)
    assert sum(kernel_macs(layer) for _, layer in found) == cost(subnet.specs).macs
    core = next(s for s in subnet.specs if s.operator is Operator.ATTENTION)
    assert kernel_macs(core) == HEADS * SIZE**4 * (16 + 48) < layer_cost(core).macs


@pytest.fixture(scope="module")
def builds(device, subnets, tmp_path_factory):
    # Compares every stored tensor with the module's operators; see `check.LayerCheck`.
    folder = tmp_path_factory.mktemp("attention")
    return {name: device.build(s, s.specs, folder / name) for name, s in subnets.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBNETS)
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
@pytest.mark.parametrize("name", SUBNETS)
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
