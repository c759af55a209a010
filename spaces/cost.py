"""Exact analytic cost of a layer: multiply-accumulates, parameters, bytes on disk.

The on-disk layout is defined here and nowhere else: `tensor_layout` names every tensor of a
layer in `subnet.safetensors`. Prepacking for a kernel is not the on-disk layout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from spaces.layer_spec import LayerSpec, Operator

DTYPE_BYTES = {"float32": 4, "int32": 4, "int8": 1, "uint8": 1}

TensorLayout = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one layer or of a whole subnet, for one input.

    Attributes:
        macs: Multiply-accumulates.
        params: Weights and biases; quantisation scales and zero points are not counted.
        bytes: Size of all tensors in the on-disk layout.
    """

    macs: int = 0
    params: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params, self.bytes + other.bytes)


def tensor_layout(spec: LayerSpec) -> TensorLayout:
    """Name -> (dtype, shape) of every tensor that a layer stores.

    A float32 layer stores `weight` and `bias`. An integer layer stores `weight` (int8: every
    integer precision in `spaces.quant_scheme.PRECISIONS` has 8-bit weights), `bias` (int32, in
    units of the accumulator) and `scale` (float32 per output channel). A layer that quantises its
    input stores `input_scale` and `input_zero_point`. Squeeze-and-excite stores its two linear
    layers `reduce` and `expand` in float32.
    """
    layout: TensorLayout = {}
    site, out = spec.site, spec.out_channels
    if spec.operator is Operator.SQUEEZE_EXCITE:
        hidden = spec.hidden_channels
        layout[f"{site}.reduce.weight"] = ("float32", (hidden, spec.in_channels))
        layout[f"{site}.reduce.bias"] = ("float32", (hidden,))
        layout[f"{site}.expand.weight"] = ("float32", (out, hidden))
        layout[f"{site}.expand.bias"] = ("float32", (out,))
    elif spec.operator is not Operator.GLOBAL_POOL:
        shape: tuple[int, ...] = (out, spec.in_channels // spec.groups)
        if spec.operator is not Operator.LINEAR:
            shape += (spec.kernel, spec.kernel)
        integer = spec.precision.weight is not None
        layout[f"{site}.weight"] = ("int8" if integer else "float32", shape)
        layout[f"{site}.bias"] = ("int32" if integer else "float32", (out,))
        if integer:
            layout[f"{site}.scale"] = ("float32", (out,))
    if spec.precision.activation is not None:
        layout[f"{site}.input_scale"] = ("float32", ())
        layout[f"{site}.input_zero_point"] = ("int32", ())
    return layout


def layer_cost(spec: LayerSpec) -> Cost:
    """The cost of one layer. Pooling and activations count no multiply-accumulates."""
    layout = tensor_layout(spec)
    size = sum(DTYPE_BYTES[dtype] * prod(shape) for dtype, shape in layout.values())
    params = sum(
        prod(shape) for name, (_, shape) in layout.items() if name.endswith(("weight", "bias"))
    )
    weights = sum(prod(shape) for name, (_, shape) in layout.items() if name.endswith("weight"))
    # Each weight is used once per output pixel; both matrices of squeeze-and-excite once.
    positions = 1 if spec.operator is Operator.SQUEEZE_EXCITE else spec.out_size**2
    return Cost(macs=weights * positions, params=params, bytes=size)


def cost(specs: Iterable[LayerSpec]) -> Cost:
    """The summed cost of a subnet."""
    return sum((layer_cost(spec) for spec in specs), Cost())
