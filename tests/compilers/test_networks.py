"""Networks of five families: traced, fused, compiled, and compared with PyTorch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from compilers.build import build_library
from compilers.check import FLOAT_TOLERANCE, INTEGER_TOLERANCE
from compilers.compiler_commands import check_layers
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_library import KernelLibrary
from compilers.onnx_export import check_onnx, export_onnx
from compilers.reference import constants, evaluate
from compilers.runtime import Model
from compilers.targets import resolve_isa
from tests.compilers.networks import NETWORKS, in_integers


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request):
    """Name, module, graph and kernel calls of one network."""
    chosen = NETWORKS[request.param]
    module = chosen.module()
    graph = trace(module, chosen.input_shape, chosen.input_dtype)
    return request.param, module, graph, fuse(graph)


def test_the_graph_computes_what_the_module_computes(network):
    name, module, graph, calls = network
    x = NETWORKS[name].sample()
    values = {**constants(graph), graph.input: x}
    for op in graph.ops:
        values[op.name] = evaluate(op, *(values[name] for name in op.inputs))
        assert values[op.name].shape == op.shape
    expected = module(x)
    torch.testing.assert_close(values[graph.output], expected, rtol=1e-5, atol=1e-5)
    assert calls.output_shape == expected.shape


def test_what_follows_a_layer_is_part_of_its_kernel(network):
    name, _, _, calls = network
    kinds = Counter(type(call.kernel).__name__ for call in calls.calls)
    expected = {
        "mobilenet": {"Conv": 1, "Gemm": 6, "Depthwise": 2, "SqueezeExcite": 2, "GlobalPool": 1},
        "resnet": {"Conv": 6, "MaxPool": 1, "GlobalPool": 1, "Gemm": 1},
        # The patches and the class token are copied; positions are added behind the class token.
        "vit": {"Copy": 2, "Gemm": 12, "Concat": 1, "Binary": 1, "Norm": 5, "Attention": 2},
        # The values' columns are copied for their convolution.
        "hybrid": {
            "Conv": 1, "Gemm": 9, "Depthwise": 3, "SqueezeExcite": 1, "Copy": 2, "Attention": 2,
            "Norm": 2, "GlobalPool": 1,
        },
        "pooled": {"Conv": 3, "MaxPool": 2, "GlobalPool": 1, "Gemm": 1},
        "llama": {"Embedding": 1, "Norm": 7, "Gemm": 22, "Attention": 3},
    }  # fmt: skip
    expected["hybrid_map"] = {**expected["hybrid"], "Gemm": 10}
    assert kinds == expected[name]
    if name == "llama":
        gated = [
            call.kernel for call in calls.calls if getattr(call.kernel, "combine", "") == "multiply"
        ]
        assert [kernel.activation for kernel in gated] == ["silu"] * 3
        heads = [call.kernel for call in calls.calls if type(call.kernel).__name__ == "Attention"]
        assert {(k.heads, k.kv_heads, k.rope, k.causal) for k in heads} == {(4, 2, True, True)}
    if name.startswith("hybrid"):
        heads = [call.kernel for call in calls.calls if type(call.kernel).__name__ == "Attention"]
        assert [kernel.activation for kernel in heads] == ["hardswish"] * 2
    if name == "resnet":
        last = [call.kernel.activation_last for call in calls.calls[-4:-2]]
        assert last == [False, True]


@pytest.mark.slow
def test_the_binary_computes_what_the_module_computes(network, cache, tmp_path):
    name, module, graph, calls = network
    isa, kernels = resolve_isa("native"), KernelLibrary(cache / "kernels")
    watched = [call.output for call in calls.calls]
    build_library(calls, isa, kernels, tmp_path / "library.so", watched)
    x, expected = NETWORKS[name].sample(), module(NETWORKS[name].sample()).numpy()
    model = Model(tmp_path / "library.so", calls.input_dtype)
    found = model.main(model.tensor(x.numpy()))[0].numpy().reshape(calls.output_shape)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    check_layers(model, graph, watched, x.numpy(), found)


def test_the_onnx_twin_computes_what_the_module_computes(network, tmp_path):
    name, module, graph, _ = network
    export_onnx(graph, tmp_path / "model.onnx")
    x = NETWORKS[name].sample()
    inputs = torch.cat([x, x.flip(-1)])
    expected = torch.cat([module(inputs[:1]), module(inputs[1:])]).numpy()
    check_onnx(tmp_path / "model.onnx", inputs.numpy(), expected, FLOAT_TOLERANCE)


@pytest.fixture(scope="module", params=["vit", "llama", "pooled"])
def integer_network(request):
    """Name, module, graph and kernel calls of a network whose layers compute in integers."""
    chosen = NETWORKS[request.param]
    module = in_integers(chosen.module(), chosen.sample())
    graph = trace(module, chosen.input_shape, chosen.input_dtype)
    return request.param, module, graph, fuse(graph)


def test_producers_quantise_what_integer_layers_read(integer_network):
    name, _, _, calls = integer_network
    kinds = Counter(type(call.kernel).__name__ for call in calls.calls)
    stored = {
        kind: {c.kernel.output_dtype for c in calls.calls if type(c.kernel).__name__ == kind}
        for kind in kinds
    }
    assert "Dequantize" not in kinds
    if name == "pooled":
        # Quantised before the maximum: by the convolution.
        assert kinds == {"QuantizeImage": 1, "Conv": 3, "MaxPool": 2, "GlobalPool": 1, "Gemm": 1}
        stem = calls.calls[1].kernel
        assert (stem.input_dtype, stem.input_layout, stem.in_channels) == ("uint8", "nhwc", 4)
        assert stored["MaxPool"] == {"uint8"}
        return
    # The class token is selected behind its normalisation.
    assert kinds["Quantize"] == (1 if name == "vit" else 0)
    assert stored["Attention"] == {"uint8"}
    last = {"vit": {"float32", "uint8"}, "llama": {"uint8"}}
    assert stored["Norm"] == last[name]
    hidden = [c.kernel for c in calls.calls if getattr(c.kernel, "activation", "none") != "none"]
    assert hidden
    assert {kernel.output_dtype for kernel in hidden} == {"uint8"}


@pytest.mark.slow
def test_an_integer_binary_computes_what_the_module_computes(integer_network, cache, tmp_path):
    name, module, graph, calls = integer_network
    watched = [call.output for call in calls.calls]
    library = tmp_path / "library.so"
    build_library(calls, resolve_isa("native"), KernelLibrary(cache / "kernels"), library, watched)
    x = NETWORKS[name].sample()
    model = Model(library, calls.input_dtype)
    found = model.main(model.tensor(x.numpy()))[0].numpy().reshape(calls.output_shape)
    check = check_layers(model, graph, watched, x.numpy(), found)
    assert check.values > 800
    expected = module(x).numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    float_result = NETWORKS[name].module()(x).numpy()
    assert np.abs(expected - float_result).max() < 0.1 * np.abs(float_result).max()


def test_the_onnx_twin_of_an_integer_network(integer_network, tmp_path):
    name, module, graph, _ = integer_network
    export_onnx(graph, tmp_path / "model.onnx")
    x = NETWORKS[name].sample()
    check_onnx(tmp_path / "model.onnx", x.numpy(), module(x).numpy(), INTEGER_TOLERANCE)
