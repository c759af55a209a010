from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compilers.build import build_library
from compilers.compiler_commands import check_layers
from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_library import KernelLibrary
from compilers.runtime import Model
from compilers.targets import resolve_isa
from spaces.layer_spec import Activation
from supernet import integer_ops


def kinds(graph):
    return [type(call.kernel).__name__ for call in graph.calls]


@pytest.mark.parametrize("name", ["fp32", "w8a8", "mixed"])
def test_one_kernel_per_layer(subnets, images, name):
    graph = fuse(trace(subnets[name], (1, *images.shape[1:])))
    calls = {call.site: call for call in graph.calls}
    assert len(calls) == len(graph.calls)
    for spec in subnets[name].specs[:-2]:
        kernel = calls[spec.site].kernel
        activation = getattr(kernel, "activation", Activation.NONE)
        assert activation is spec.activation
        if spec.precision.weight is not None:
            assert kernel.input_dtype == "uint8", f"{spec.site} is not an integer kernel"
        assert bool(getattr(kernel, "residual", None)) == spec.residual
    extra = set(calls) - {spec.site for spec in subnets[name].specs}
    assert all(type(calls[site].kernel).__name__ in ("Dequantize", "Quantize", "GlobalPool")
               for site in extra)  # fmt: skip


def test_an_integer_subnet_stores_every_quantised_tensor_as_uint8_only(subnets, images):
    graph = fuse(trace(subnets["w8a8"], (1, *images.shape[1:])))
    stored = {call.site: call.kernel.output_dtype for call in graph.calls}
    floats = {site for site, dtype in stored.items() if dtype == "float32"}
    # The head feeds the pool, which reads it in float; the pool quantises for the classifier.
    assert floats == {"head", "classifier"}
    assert "Quantize" not in kinds(graph)
    project = next(call for call in graph.calls if call.site == "a.project")
    assert project.kernel.residual == "uint8"
    assert project.params.residual == next(
        call.params.input for call in graph.calls if call.site == "a.expand"
    )


class Mixed(nn.Module):
    """One value read as float and by two quantisations with different constants."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 2, 1)
        self.dense = nn.Conv2d(16, 16, 1)
        self.again = nn.Conv2d(16, 16, 1)
        self.classifier = nn.Linear(16, 10)
        generator = torch.Generator().manual_seed(1)
        integers = torch.randint(-127, 128, (2, 16, 16, 1, 1), generator=generator)
        self.register_buffer("weights", integers.to(torch.int8))
        self.register_buffer("bias", torch.zeros(16, dtype=torch.int32))
        self.register_buffer("scale", torch.full((16,), 1e-4))
        for name, scale, zero in (("p", 0.02, 100), ("q", 0.03, 30)):
            self.register_buffer(f"{name}_scale", torch.tensor(scale))
            self.register_buffer(f"{name}_zero", torch.tensor(zero, dtype=torch.int32))
        self.register_buffer("first", self.weights[0].clone())
        self.register_buffer("second", self.weights[1].clone())
        del self.weights

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        p = integer_ops.quantize(x, self.p_scale, self.p_zero)
        q = integer_ops.quantize(x, self.q_scale, self.q_zero)
        a = integer_ops.qconv2d(p, self.p_zero, self.first, self.bias, self.scale, 1, 0, 1)
        b = integer_ops.qconv2d(q, self.q_zero, self.second, self.bias, self.scale, 1, 0, 1)
        c = self.dense(x) + a
        d = self.again(integer_ops.dequantize(q, self.q_scale, self.q_zero)) + b
        return self.classifier((self.dense(c) + d).mean((2, 3)))


def test_mixed_readers_get_explicit_conversions(cache, images, tmp_path):
    torch.manual_seed(0)
    module, x = Mixed().eval(), images[:3]
    graph = trace(module, (1, *x.shape[1:]))
    calls = fuse(graph)
    names = kinds(calls)
    assert names.count("Quantize") == 2
    assert names.count("Dequantize") == 1
    assert names.count("Gemm") == 6  # two integer, three float, the classifier
    isa, kernels = resolve_isa("native"), KernelLibrary(cache / "kernels")
    watched = [call.output for call in calls.calls]
    build_library(calls, isa, kernels, tmp_path / "plain.so")
    build_library(calls, isa, kernels, tmp_path / "watched.so", watched)
    logits = Model(tmp_path / "plain.so")(x)
    check = check_layers(Model(tmp_path / "watched.so"), graph, watched, x, logits)
    assert check.values > 500
    np.testing.assert_allclose(logits, module(torch.from_numpy(x)).detach(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda s, x: torch.rsqrt(s.a(x)).mean((2, 3)), "rsqrt"),
        (lambda s, x: F.hardsigmoid(s.a(x)).mean((2, 3)), "hardsigmoid"),
        (lambda s, x: s.grouped(s.a(x)).mean((2, 3)), "2 groups"),
        (lambda s, x: s.unpadded(s.a(x)).mean((2, 3)), "padded by 0"),
        (lambda s, x: s.uneven(s.a(x)).mean((2, 3)), r"\(3, 1\) convolution"),
        (lambda s, x: x.mean((2, 3)), "multiple of 8"),
    ],
)
def test_what_no_kernel_covers_is_an_error(forward, message):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 1), nn.Conv2d(1, 8, 1)
            self.grouped = nn.Conv2d(8, 8, 3, 1, 1, groups=2)
            self.unpadded = nn.Conv2d(8, 8, 3, groups=8)
            self.uneven = nn.Conv2d(8, 8, (3, 1))

        def forward(self, x):
            return forward(self, x)

    with pytest.raises(UnsupportedOperatorError, match=message):
        fuse(trace(Net(), (1, 1, 8, 8)))
