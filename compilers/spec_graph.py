"""The operator graph of a subnet from its LayerSpecs alone: what tracing it gives, without weights.

`frontend.trace` reads the graph from the module and is what builds use. Here a space's subnets are
only asked which kernels they contain, for many thousands of combinations of layers, so the graph
is written down directly, operator by operator as `supernet.extract.Subnet.forward` executes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind
from spaces.layer_spec import LAYER_NORM_EPSILON, Activation, LayerSpec, Operator
from spaces.quant_scheme import PRECISIONS, U8_ACTIVATION, LayerPrecision

_INPUT = "x"
# Squeeze-and-excite and pooling have no integer weights.
_EXECUTED = frozenset({*PRECISIONS.values(), LayerPrecision(None, U8_ACTIVATION)})


def subnet_graph(specs: Sequence[LayerSpec]) -> Graph:
    """The graph of the subnet with these layers; all parameters are zeros that take no memory.

    Raises:
        UnsupportedOperatorError: A precision that no kernel executes.
    """
    return _Writer(specs).graph()


class _Writer:
    def __init__(self, specs: Sequence[LayerSpec]) -> None:
        self.specs = specs
        size = specs[0].in_size
        map_shape = (1, specs[0].in_channels, size, size)
        linear = specs[0].operator is Operator.LINEAR
        self.shapes: dict[str, tuple[int, ...]] = {_INPUT: map_shape[:2] if linear else map_shape}
        self.ops: list[Op] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def graph(self) -> Graph:
        value, shortcut, previous = _INPUT, _INPUT, ""
        projected = {spec.block for spec in self.specs if spec.shortcut}
        identity_blocks = {spec.block for spec in self.specs if spec.residual} - projected
        for spec in self.specs:
            if spec.precision not in _EXECUTED:
                raise _not_executed(spec)
            quantised = spec.precision.activation is not None
            read = self.quantised(value, spec) if quantised else value
            if spec.block != previous and spec.block in identity_blocks:
                shortcut = self.dequantised(read, spec) if quantised else value
            previous = spec.block
            if quantised and spec.precision.weight is None:
                read = self.dequantised(read, spec)
            out = self.activated(self.layer(read, spec), spec.activation, spec)
            if spec.shortcut:
                shortcut = out
                continue
            value = out
            if spec.residual:
                value = self.emit(OpKind.ADD, spec.site, (value, shortcut))
                value = self.activated(value, spec.residual_activation, spec)
        shape = self.shapes[_INPUT]
        return Graph(_INPUT, shape, tuple(self.ops), value, constants=self.constants)

    def activated(self, x: str, activation: Activation, spec: LayerSpec) -> str:
        if activation is Activation.NONE:
            return x
        return self.emit(OpKind(activation), spec.site, (x,))

    def layer(self, x: str, spec: LayerSpec) -> str:
        channels, size = spec.out_channels, spec.out_size
        match spec.operator:
            case Operator.SQUEEZE_EXCITE:
                return self.squeeze_excite(x, spec)
            case Operator.MAX_POOL:
                pooled, side = (1, channels, size, size), spec.kernel
                return self.emit(OpKind.MAX_POOL, spec.site, (x,), pooled, window=spec, kernel=side)
            case Operator.GLOBAL_POOL:
                return self.emit(OpKind.MEAN, spec.site, (x,), (1, channels), axes=(2, 3))
            case Operator.ATTENTION:
                return self.attention(x, spec)
            case Operator.LAYER_NORM:
                return self.layer_norm(x, spec)
        kind, attributes = _layer_kind(spec), {}
        if (weight := spec.precision.weight) is not None:
            attributes["weight_bits"] = weight.bits
            if weight.group_size is not None:
                attributes["group_size"] = weight.group_size
        flat = spec.operator is Operator.LINEAR
        shape = (1, channels) if flat else (1, channels, size, size)
        window = None if flat else spec
        return self.emit(kind, spec.site, (x,), shape, _weights(spec), window, **attributes)

    def squeeze_excite(self, x: str, spec: LayerSpec) -> str:
        channels, hidden = spec.out_channels, spec.hidden_channels
        reduce, expand = f"{spec.site}.reduce", f"{spec.site}.expand"
        gate = self.emit(OpKind.MEAN, spec.site, (x,), (1, channels), axes=(2, 3))
        weights = _float_weights((hidden, channels))
        gate = self.emit(OpKind.LINEAR, reduce, (gate,), (1, hidden), weights)
        gate = self.emit(OpKind.RELU, spec.site, (gate,))
        weights = _float_weights((channels, hidden))
        gate = self.emit(OpKind.LINEAR, expand, (gate,), (1, channels), weights)
        gate = self.emit(OpKind.HARDSIGMOID, spec.site, (gate,))
        gate = self.emit(OpKind.RESHAPE, spec.site, (gate,), (1, channels, 1, 1))
        return self.emit(OpKind.MUL, spec.site, (x, gate))

    def layer_norm(self, x: str, spec: LayerSpec) -> str:
        channels, size = spec.out_channels, spec.out_size
        pixels = self.emit(
            OpKind.PERMUTE, spec.site, (x,), (1, size, size, channels), axes=(0, 2, 3, 1)
        )
        out = self.emit(
            OpKind.LAYER_NORM, spec.site, (pixels,), params=_float_weights((channels,)),
            epsilon=LAYER_NORM_EPSILON,
        )  # fmt: skip
        shape = (1, channels, size, size)
        return self.emit(OpKind.PERMUTE, spec.site, (out,), shape, axes=(0, 3, 1, 2))

    def attention(self, x: str, spec: LayerSpec) -> str:
        size, heads, values = spec.out_size, spec.heads, spec.out_channels
        (query, value), pixels = spec.head_channels, size**2
        parts, start = [], 0
        for channels in (heads * query, heads * query, values):
            shape = (1, channels, size, size)
            parts.append(self.emit(OpKind.SLICE, spec.site, (x,), shape, axis=1, start=start))
            start += channels
        parts[2] = self.layer(parts[2], spec.value_convolution)
        operands = []
        for part, channels in zip(parts, (query, query, value), strict=True):
            split = self.emit(OpKind.RESHAPE, spec.site, (part,), (1, heads, channels, pixels))
            operands.append(self.transposed(split, spec.site))
        bias = f"{spec.site}.position"
        self.constants[bias] = _zeros(np.float32, heads, pixels, pixels)
        out = self.emit(
            OpKind.ATTENTION, spec.site, (*operands, bias), (1, heads, pixels, value),
            scale=query**-0.5, causal=False,
        )  # fmt: skip
        out = self.transposed(out, spec.site)
        return self.emit(OpKind.RESHAPE, spec.site, (out,), (1, values, size, size))

    def transposed(self, x: str, site: str) -> str:
        """[1, heads, A, B] -> [1, heads, B, A]."""
        one, heads, rows, columns = self.shapes[x]
        axes = (0, 1, 3, 2)
        return self.emit(OpKind.PERMUTE, site, (x,), (one, heads, columns, rows), axes=axes)

    def quantised(self, x: str, spec: LayerSpec) -> str:
        return self.emit(OpKind.QUANTIZE, spec.site, (x,), params=_QPARAMS)

    def dequantised(self, x: str, spec: LayerSpec) -> str:
        return self.emit(OpKind.DEQUANTIZE, spec.site, (x,), params=_QPARAMS)

    def emit(
        self,
        kind: OpKind,
        site: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...] | None = None,
        params: Mapping[str, NDArray[Any]] | None = None,
        window: LayerSpec | None = None,
        **attributes: Any,
    ) -> str:
        """Append an operator; its result has the shape of its first input when none is given."""
        name = f"v{len(self.ops)}"
        self.shapes[name] = shape or self.shapes[inputs[0]]
        stride, padding, groups = (
            (window.stride, window.padding, window.groups) if window is not None else (1, 0, 1)
        )
        self.ops.append(
            Op(
                name,
                kind,
                inputs,
                self.shapes[name],
                site,
                params or {},
                stride,
                padding,
                groups,
                attributes,
            )
        )
        return name


# Layers that read one tensor under one scheme share its quantiser.
_QPARAMS: Mapping[str, NDArray[Any]] = {
    "scale": np.ones((), np.float32),
    "zero_point": np.zeros((), np.int32),
}


def _layer_kind(spec: LayerSpec) -> OpKind:
    """What `supernet.subnet_layers.build_layer` makes of a convolution or linear layer."""
    linear, precision = spec.operator is Operator.LINEAR, spec.precision
    if precision.weight_only and not linear:
        raise _not_executed(spec)
    if precision.weight_only:
        return OpKind.WEIGHT_ONLY_LINEAR
    if precision.integer:
        return OpKind.QLINEAR if linear else OpKind.QCONV
    return OpKind.LINEAR if linear else OpKind.CONV


def _not_executed(spec: LayerSpec) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"{spec.site}: {spec.operator} in {spec.precision.name}, which no kernel executes"
    )


def _weights(spec: LayerSpec) -> dict[str, NDArray[Any]]:
    shape, scheme = spec.weight_shape, spec.precision.weight
    if scheme is None:
        return _float_weights(shape)
    weight = _zeros(np.int8, *shape)
    if scheme.group_size is not None:
        groups = -(-shape[1] // scheme.group_size)
        scale = _zeros(np.float32, shape[0], groups)
        return {"weight": weight, "bias": _zeros(np.float32, shape[0]), "scale": scale}
    return {
        "weight": weight,
        "bias": _zeros(np.int32, shape[0]),
        "scale": _zeros(np.float32, shape[0]),
        "input_zero_point": _zeros(np.int32),
    }


def _float_weights(shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    return {"weight": _zeros(np.float32, *shape), "bias": _zeros(np.float32, shape[0])}


def _zeros(dtype: type[np.generic], *shape: int) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)
