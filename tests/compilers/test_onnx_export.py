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
    onnxruntime.InferenceSession(
        str(models["w8a8"]), options, providers=["CPUExecutionProvider"]
    )
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    # Where quantisation follows the convolution or its relu directly: not after a hardswish,
    # whose quantisation would be one that the module does not have.
    assert kinds.count("QLinearConv") >= 3
