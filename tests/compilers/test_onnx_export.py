from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compilers.check import tolerance
from compilers.errors import MismatchError
from compilers.frontend import trace
from compilers.onnx_export import check_onnx, export_onnx, run_onnx
from spaces.quant_scheme import W8A8


@pytest.fixture(scope="module")
def models(subnets, images, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    for name, subnet in subnets.items():
        export_onnx(trace(subnet, (1, *images.shape[1:])), folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in subnets}


@pytest.mark.parametrize("name", ["fp32", "w8a8", "mixed"])
def test_outputs_of_any_batch_are_the_module_s(models, subnets, images, name):
    with torch.inference_mode():
        expected = subnets[name](torch.from_numpy(images)).numpy()
    check_onnx(models[name], images, expected, tolerance(subnets[name].specs))
    if name == "fp32":
        np.testing.assert_allclose(run_onnx(models[name], images), expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(MismatchError, match=name):
        check_onnx(models[name], images, expected[::-1], 1e-3)


@pytest.mark.parametrize("role", ["zero_point", "scale"])
def test_a_slightly_wrong_constant_is_found(models, subnets, images, tmp_path, role):
    """In one DequantizeLinear at a time: a zero point off by one, or a scale by 2 %."""
    subnet = subnets["w8a8"]
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(images)).numpy()
    original = onnx.load(models["w8a8"])
    values = {i.name: onnx.numpy_helper.to_array(i) for i in original.graph.initializer}
    place = 2 if role == "zero_point" else 1
    nodes = [
        index
        for index, node in enumerate(original.graph.node)
        if node.op_type == "DequantizeLinear" and values[node.input[2]].dtype == np.uint8
    ]
    assert len(nodes) > 5
    hidden = 0
    for index in nodes:
        model = onnx.load(models["w8a8"])
        node = model.graph.node[index]
        value = values[node.input[place]]
        wrong = value + np.uint8(1) if role == "zero_point" else value * np.float32(1.02)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(wrong, value.dtype), "wrong")
        )
        node.input[place] = "wrong"
        onnx.save(model, tmp_path / "wrong.onnx")
        with pytest.raises(MismatchError, match=r"wrong\.onnx"):
            check_onnx(tmp_path / "wrong.onnx", images, expected, tolerance(subnet.specs))
        found = run_onnx(tmp_path / "wrong.onnx", images)
        hidden += np.abs(found - expected).max() <= tolerance(subnet.specs) * np.abs(expected).max()
    assert hidden > 0, "the tolerance of the optimised model found every one of them"


def test_quantised_layers_store_their_integers(models, subnets):
    initializers = {
        i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(models["w8a8"]).graph.initializer
    }
    integers = [a for n, a in initializers.items() if n.endswith(".weight.integers")]
    state = subnets["w8a8"].state_dict()
    quantised = [s for s in subnets["w8a8"].specs if s.precision == W8A8]
    assert len(integers) == len(quantised)
    for array, spec in zip(integers, quantised, strict=True):
        assert array.dtype == np.int8
        np.testing.assert_array_equal(array, state[f"{spec.site}.weight"].numpy())
    # A shape of [1] would be a scale per channel: some of ONNX Runtime's fusions refuse it.
    scalars = [a for n, a in initializers.items() if a.dtype == np.uint8]
    assert scalars
    assert all(array.shape == () for array in scalars)
    biases = [a for n, a in initializers.items() if n.endswith(".bias.integers")]
    assert all(array.dtype == np.int32 for array in biases)


def test_onnx_runtime_fuses_integer_convolutions(models, subnets, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(models["w8a8"]), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    # Where quantisation follows the convolution or its relu directly: not after a hardswish,
    # whose quantisation would be one that the module does not have.
    assert kinds.count("QLinearConv") >= 3
