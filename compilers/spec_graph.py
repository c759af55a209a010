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
from spaces.layer_spec import Activation, LayerSpec, Operator

_INPUT = "x"


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

    def graph(self) -> Graph:
        value, shortcut, previous = _INPUT, _INPUT, ""
        shortcut_blocks = {_block(spec) for spec in self.specs if spec.residual}
        for spec in self.specs:
            quantised = spec.precision.activation is not None
            if quantised:
                value = self.emit(OpKind.QUANTIZE, spec.site, (value,))
            block = _block(spec)
            if block != previous and block in shortcut_blocks:
                shortcut = self.dequantized(value, spec) if quantised else value
            previous = block
            if quantised and spec.precision.weight is None:
                value = self.dequantized(value, spec)
            value = self.layer(value, spec)
            if spec.activation is not Activation.NONE:
                value = self.emit(OpKind(spec.activation), spec.site, (value,))
            if spec.residual:
                value = self.emit(OpKind.ADD, spec.site, (value, shortcut))
        return Graph(_INPUT, self.shapes[_INPUT], tuple(self.ops), value)

    def layer(self, x: str, spec: LayerSpec) -> str:
        channels, size = spec.out_channels, spec.out_size
        match spec.operator:
            case Operator.SQUEEZE_EXCITE:
                return self.squeeze_excite(x, spec)
            case Operator.GLOBAL_POOL:
                return self.emit(OpKind.MEAN, spec.site, (x,), (1, channels))
        integer = spec.precision.weight is not None
        if integer and spec.precision.activation is None:
            raise UnsupportedOperatorError(
                f"{spec.site}: integer weights on a float32 input, which no kernel executes"
            )
        shape: tuple[int, ...] = (channels, spec.in_channels // spec.groups)
        if spec.operator is Operator.LINEAR:
            kind = OpKind.QLINEAR if integer else OpKind.LINEAR
            return self.emit(kind, spec.site, (x,), (1, channels), _weights(shape, integer))
        kind = OpKind.QCONV if integer else OpKind.CONV
        shape += (spec.kernel, spec.kernel)
        return self.emit(
            kind, spec.site, (x,), (1, channels, size, size), _weights(shape, integer), spec
        )

    def squeeze_excite(self, x: str, spec: LayerSpec) -> str:
        channels, hidden = spec.out_channels, spec.hidden_channels
        reduce, expand = f"{spec.site}.reduce", f"{spec.site}.expand"
        gate = self.emit(OpKind.MEAN, spec.site, (x,), (1, channels))
        weights = _weights((hidden, channels), integer=False)
        gate = self.emit(OpKind.LINEAR, reduce, (gate,), (1, hidden), weights)
        gate = self.emit(OpKind.RELU, spec.site, (gate,))
        weights = _weights((channels, hidden), integer=False)
        gate = self.emit(OpKind.LINEAR, expand, (gate,), (1, channels), weights)
        gate = self.emit(OpKind.HARDSIGMOID, spec.site, (gate,))
        gate = self.emit(OpKind.RESHAPE, spec.site, (gate,), (1, channels, 1, 1))
        return self.emit(OpKind.MUL, spec.site, (x, gate))

    def dequantized(self, x: str, spec: LayerSpec) -> str:
        return self.emit(OpKind.DEQUANTIZE, spec.site, (x,))

    def emit(
        self,
        kind: OpKind,
        site: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...] | None = None,
        params: Mapping[str, NDArray[Any]] | None = None,
        window: LayerSpec | None = None,
    ) -> str:
        """Append an operator; its result has the shape of its first input when none is given."""
        name = f"v{len(self.ops)}"
        if kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE):
            params = _QPARAMS
        self.shapes[name] = shape or self.shapes[inputs[0]]
        attributes = {"axes": (2, 3)} if kind is OpKind.MEAN else {}
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


_QPARAMS: Mapping[str, NDArray[Any]] = {
    "scale": np.ones((), np.float32),
    "zero_point": np.zeros((), np.int32),
}


def _weights(shape: tuple[int, ...], integer: bool) -> dict[str, NDArray[Any]]:
    def zeros(dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        return np.broadcast_to(np.zeros((), dtype), shape)

    if not integer:
        return {"weight": zeros(np.float32, *shape), "bias": zeros(np.float32, shape[0])}
    return {
        "weight": zeros(np.int8, *shape),
        "bias": zeros(np.int32, shape[0]),
        "scale": zeros(np.float32, shape[0]),
        "input_zero_point": np.zeros((), np.int32),
    }


def _block(spec: LayerSpec) -> str:
    return spec.site.rpartition(".")[0]
