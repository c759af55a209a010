"""Exact analytic cost of a layer: multiply-accumulates, parameters, bytes on disk.

The on-disk layout is defined here and nowhere else: `tensor_layout` names every tensor of a
layer in `subnet.safetensors`. Prepacking for a kernel is not the on-disk layout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from spaces.layer_spec import POOLING, LayerSpec, Operator
from spaces.quant_scheme import FLOAT_BITS, QuantScheme, Symmetry

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

    A float32 layer stores `weight` and `bias`. An integer layer stores `weight`, `bias` (int32, in
    units of the accumulator) and `scale`, float32 per output channel whether its weight has one
    scale per channel or one for all: the normalisation that follows is part of it. Where inputs in
    groups have scales of their own, `scale` is float32 [O, groups of inputs] and `bias` float32, in
    a weight-only layer as well. Asymmetric weights have a `weight_zero_point`, int8 of the shape of
    `scale`. A layer that quantises its input stores `input_scale` and `input_zero_point`, whatever
    its bits. Squeeze-and-excite stores its two linear layers `reduce` and `expand` in float32,
    attention the depthwise convolution of its values and its position biases [heads, |dy|, |dx|],
    LayerNorm a `weight` and a `bias` per channel.

    Integer weights of 8 bits are stored as int8. Narrower ones are packed into bytes, the whole
    tensor in one row: element i, in two's complement, is the bits `i * bits` to
    `(i + 1) * bits - 1` of a stream whose bit 0 is the least significant bit of byte 0.
    """
    layout: TensorLayout = {}
    site, out = spec.site, spec.out_channels
    if spec.operator is Operator.SQUEEZE_EXCITE:
        hidden = spec.hidden_channels
        layout[f"{site}.reduce.weight"] = ("float32", (hidden, spec.in_channels))
        layout[f"{site}.reduce.bias"] = ("float32", (hidden,))
        layout[f"{site}.expand.weight"] = ("float32", (out, hidden))
        layout[f"{site}.expand.bias"] = ("float32", (out,))
    elif spec.operator is Operator.ATTENTION:
        layout |= tensor_layout(spec.value_convolution)
        layout[f"{site}.position.bias"] = ("float32", (spec.heads, spec.in_size, spec.in_size))
    elif spec.operator is Operator.LAYER_NORM:
        layout[f"{site}.weight"] = layout[f"{site}.bias"] = ("float32", (out,))
    elif spec.operator not in POOLING:
        scheme = spec.precision.weight
        layout[f"{site}.weight"] = _stored(spec.weight_shape, scheme)
        in_steps = spec.precision.integer and scheme is not None and scheme.group_size is None
        layout[f"{site}.bias"] = ("int32" if in_steps else "float32", (out,))
        if scheme is not None:
            shape = _scale_shape(spec.weight_shape, scheme)
            layout[f"{site}.scale"] = ("float32", shape)
            if scheme.symmetry is Symmetry.ASYMMETRIC:
                layout[f"{site}.weight_zero_point"] = ("int8", shape)
    if spec.precision.activation is not None:
        layout[f"{site}.input_scale"] = ("float32", ())
        layout[f"{site}.input_zero_point"] = ("int32", ())
    return layout


def _stored(shape: tuple[int, ...], scheme: QuantScheme | None) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape) in which a weight of `shape` is stored."""
    if scheme is None:
        return "float32", shape
    if scheme.bits == 8:
        return "int8", shape
    return "uint8", (-(-prod(shape) * scheme.bits // 8),)


def _scale_shape(shape: tuple[int, ...], scheme: QuantScheme) -> tuple[int, ...]:
    """[O], or [O, groups of inputs] of a scheme with groups."""
    if scheme.group_size is None:
        return shape[:1]
    return shape[0], -(-shape[1] // scheme.group_size)


def layer_cost(spec: LayerSpec) -> Cost:
    """The cost of one layer. Pooling, softmax, LayerNorm and activations count no
    multiply-accumulates."""
    layout = tensor_layout(spec)
    size = sum(DTYPE_BYTES[dtype] * prod(shape) for dtype, shape in layout.values())
    weights = prod(spec.weight_shape)
    # Each weight is used once per output pixel; both matrices of squeeze-and-excite once.
    positions = 1 if spec.operator is Operator.SQUEEZE_EXCITE else spec.out_size**2
    products = 0
    if spec.operator is Operator.SQUEEZE_EXCITE:
        weights = (spec.in_channels + spec.out_channels) * spec.hidden_channels
    elif spec.operator is Operator.ATTENTION:
        weights = prod(spec.value_convolution.weight_shape)
        # Scores, and their sums of values, of every pair of pixels.
        products = spec.heads * sum(spec.head_channels) * positions**2
    biases = sum(prod(shape) for name, (_, shape) in layout.items() if name.endswith("bias"))
    gains = spec.out_channels if spec.operator is Operator.LAYER_NORM else 0
    params = weights + gains + biases
    return Cost(macs=weights * positions + products, params=params, bytes=size)


def bit_operations(spec: LayerSpec) -> int:
    """Multiply-accumulates times the bits of weight and input (Wang et al. 2019, "HAQ"); float32
    counts as 32 bits."""
    weight, activation = spec.precision.weight, spec.precision.activation
    weight_bits = weight.bits if weight else FLOAT_BITS
    activation_bits = activation.bits if activation else FLOAT_BITS
    return layer_cost(spec).macs * weight_bits * activation_bits


def cost(specs: Iterable[LayerSpec]) -> Cost:
    """The summed cost of a subnet."""
    return sum((layer_cost(spec) for spec in specs), Cost())
