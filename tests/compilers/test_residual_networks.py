"""Subnets of ResNet supernets: fused, compiled, bundled, and compared with the module."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from compilers.bundle import BundleInfo, load_bundle, verify_bundle, write_bundle
from compilers.frontend import trace
from compilers.fusion import fuse
from spaces.layer_spec import Operator
from supernet.data import resize
from supernet.recalibration import recalibrate
from supernet.testing import sample_images, sample_supernet
from tests.supernet.resnets import basic_space, bottleneck_space

CASES = {
    # Bits by turns: a projection is float32 beside an integer convolution, and the other way round.
    "basic, mixed": (basic_space, (32, 8, 4)),
    "bottleneck, w8a8": (bottleneck_space, (8,)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Name of a case, its subnet, and images at the subnet's resolution."""
    make, bits = CASES[request.param]
    space = make()
    names = [name for name in space.names if name.endswith("w_bits")]
    chosen = {name: bits[i % len(bits)] for i, name in enumerate(names)}
    config = space.config({**space.min_config(), "stage2.depth": 2, **chosen})
    supernet, images = sample_supernet(space), sample_images(space, 32, seed=1)
    supernet.activate(config)
    recalibrate(supernet, images)
    return request.param, supernet.extract(config), resize(images, supernet.resolution)


def test_additions_and_what_follows_them_are_part_of_a_layer_s_kernel(case):
    name, subnet, images = case
    calls = fuse(trace(subnet, (1, *images.shape[1:]))).calls
    kinds = Counter(type(call.kernel).__name__ for call in calls)
    assert not kinds["Binary"]
    assert not kinds["Unary"]
    layers = [spec for spec in subnet.specs if spec.operator is Operator.CONV]
    assert kinds["Conv"] + kinds["Gemm"] == len(layers) + 1
    adding = [call.kernel for call in calls if getattr(call.kernel, "residual", None)]
    assert [(k.activation, k.activation_last) for k in adding] == [("relu", True)] * 3
    if name == "bottleneck, w8a8":
        # The stem's epilogue quantises for the pool, whose result the first block's projection and
        # its first convolution read.
        assert [type(call.kernel).__name__ for call in calls[:2]] == ["Conv", "MaxPool"]
        assert calls[1].kernel.input_dtype == "uint8"
        assert not kinds["Quantize"] + kinds["Dequantize"]


@pytest.mark.slow
def test_the_bundle_computes_what_the_module_computes(case, device, tmp_path):
    name, subnet, images = case
    x = images.numpy()
    build = device.build(subnet, subnet.specs, tmp_path / "build", x[:8])
    with torch.inference_mode():
        expected = subnet(images).numpy()
    found = device.run(build, x)
    assert np.abs(found - expected).max() <= build.tolerance * np.abs(expected).max()
    integer = {record.site for record in build.kernels if record.input_dtype == "uint8"}
    assert {spec.site for spec in subnet.specs if spec.precision.integer} <= integer
    # It exports the ONNX twin and compares it with the module.
    folder = write_bundle(tmp_path / "bundle", build, device, BundleInfo({}, name))
    assert verify_bundle(folder, device, measure=False).difference <= 1e-4
    assert load_bundle(folder).specs == subnet.specs
    assert json.loads((folder / "manifest.json").read_text())["onnx_difference"] <= build.tolerance
