"""What happens to an accumulator before it is stored: scale, activation, residual, requantise.

    y = accumulator [* scale[c]];  y = activation(y);  y += residual;  q = round(y / s_out) + z_out

The residual may also be multiplied (a gated linear unit), or come before the activation (ResNet).
With a uint8 output, y ends in steps of the output: 1 / s_out is folded into the scale (or weights)
when the activation is homogeneous (none, relu), into the activation otherwise, and into the factor
of a residual that is added to steps. So requantising costs one conversion, one addition and the
clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from compilers.errors import KernelError
from compilers.intrinsics import pack_to_uint8, round_to_int
from compilers.kernels.base import DTYPES, DType, LayerParams, QParams
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    broadcast,
    cast,
    load,
    maximum,
    minimum,
    shuffle,
    splat,
)
from compilers.kernels.vector_math import gelu, silu
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Places in the two small constant arrays that quantised kernels take.
_INVERSE, _GATE_SLOPE, _GATE_OFFSET, _RESIDUAL_FACTOR = range(4)
_PACKED = 4
_OUTPUT_ZERO, _RESIDUAL_ZERO, _INPUT_ZERO = range(3)


Combine: TypeAlias = Literal["add", "multiply"]
"""What is done with a residual."""

_HOMOGENEOUS = (Activation.NONE, Activation.RELU)
"""Activations for which f(a x) = a f(x) when a > 0."""


def check_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `KernelError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise KernelError(f"{what} is {value!r}; the templates know {', '.join(allowed)}")


def require(what: str, value: QParams | None) -> QParams:
    """The quantisation parameters, or a `KernelError` that names what is missing."""
    if value is None:
        raise KernelError(f"the kernel's {what} is uint8, but its scale and zero point are missing")
    return value


@dataclass(frozen=True, slots=True)
class Epilogue:
    """The tail of one kernel.

    Attributes:
        activation: none, or what is applied.
        residual: element type of the residual tensor, or None.
        output_dtype: element type of the output.
        input_dtype: element type of the kernel's input.
        integer: whether accumulators are sums of integers, to be scaled per channel.
        combine: whether the residual is added or multiplied.
        activation_last: whether the activation follows the residual.
    """

    activation: Activation
    residual: DType | None
    output_dtype: DType
    input_dtype: DType
    integer: bool
    combine: Combine = "add"
    activation_last: bool = False

    def __post_init__(self) -> None:
        check_choice("input dtype", self.input_dtype, DTYPES)
        check_choice("output dtype", self.output_dtype, DTYPES)
        check_choice("activation", self.activation, tuple(Activation))
        if self.residual is not None:
            check_choice("residual dtype", self.residual, DTYPES)
        check_choice("combine", self.combine, get_args(Combine))
        if self.residual is None and (self.combine != "add" or self.activation_last):
            raise KernelError(
                f"combine {self.combine!r} and activation_last {self.activation_last} say what "
                "happens to a residual, but there is none"
            )

    @property
    def quantised(self) -> bool:
        """Whether the kernel takes the two arrays of quantisation scalars."""
        return "uint8" in (self.input_dtype, self.residual, self.output_dtype)

    @property
    def early_steps(self) -> bool:
        """Whether values are in steps of the output from the scale (or the weights) on."""
        return self.output_dtype == "uint8" and self.activation in _HOMOGENEOUS

    @property
    def residual_in_steps(self) -> bool:
        """Whether the residual is added to values that are in steps of the output."""
        late = self.output_dtype == "uint8" and not self.activation_last
        return self.combine == "add" and (self.early_steps or late)

    @property
    def clamps_at_zero_point(self) -> bool:
        """Whether relu is the clamp at the zero point, instead of an operation on floats."""
        last = self.residual is None or self.activation_last
        return self.output_dtype == "uint8" and last and self.activation == Activation.RELU

    def fold(self, params: LayerParams) -> np.float32:
        """Factor that the per-channel scale (integer) or the weights and bias (float) absorb."""
        if not self.early_steps:
            return np.float32(1.0)
        return np.float32(1.0) / np.float32(require("output", params.output).scale)

    def scalars(self, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """float32 [4] factors and int32 [3] zero points; nothing for a float kernel."""
        if not self.quantised:
            return ()
        inverse = np.float32(1.0)
        zeros = np.zeros(3, np.int32)
        if self.output_dtype == "uint8":
            output = require("output", params.output)
            inverse /= np.float32(output.scale)
            zeros[_OUTPUT_ZERO] = output.zero_point
        factor = inverse if self.residual_in_steps else np.float32(1.0)
        if self.residual == "uint8":
            residual = require("residual", params.residual)
            factor *= np.float32(residual.scale)
            zeros[_RESIDUAL_ZERO] = residual.zero_point
        if self.input_dtype == "uint8":
            zeros[_INPUT_ZERO] = require("input", params.input).zero_point
        gate = inverse * np.float32(1 / 6), inverse * np.float32(0.5)
        return np.array([inverse, *gate, factor], np.float32), zeros


def plain_epilogue(input_dtype: DType, output_dtype: DType) -> Epilogue:
    """The epilogue of a kernel that computes in float32, with neither activation nor residual."""
    return Epilogue(Activation.NONE, None, output_dtype, input_dtype, integer=False)


def layer_epilogue(
    input_dtype: DType,
    activation: Activation,
    residual: DType | None,
    output_dtype: DType,
    combine: Combine = "add",
    activation_last: bool = False,
) -> Epilogue:
    """The epilogue of a layer with weights: a uint8 input means integer accumulators."""
    integer = input_dtype == "uint8"
    return Epilogue(
        activation, residual, output_dtype, input_dtype, integer, combine, activation_last
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished accumulator and its place in the output.

    Attributes:
        pixel: row of the output (and of the residual).
        channel: first output channel.
        lanes: vector length.
        valid: channels that exist.
        accumulator: int32 or float32 vector of sums.
        follows: whether it lies directly behind the previous cell of its list in memory.
    """

    pixel: Index
    channel: Index
    lanes: int
    valid: int
    accumulator: Expr
    follows: bool = False


class EpilogueCode:
    """Emits one `Epilogue`; create it after the kernel's weights, before its loops.

    Declares, in this order and as far as needed: `scale` [channels], the scalars. The residual is
    declared by the kernel (data inputs come first), the output last.
    """

    def __init__(
        self,
        em: Emitter,
        epilogue: Epilogue,
        channels: int,
        vector_lanes: int,
        residual: Buffer | None = None,
    ) -> None:
        self.em = em
        self.vector_lanes = vector_lanes
        self.epilogue = epilogue
        self.residual = residual
        self.scale = em.argument("scale", (channels,)) if epilogue.integer else None
        self.factors = em.argument("factors", (4,)) if epilogue.quantised else None
        self.zeros = em.argument("zeros", (3,), "int32") if epilogue.quantised else None

    def zero(self, place: int, lanes: int) -> Expr:
        """A zero point as an int32 vector."""
        return broadcast(load(self.zeros, [place], 1), lanes)

    def input_zero(self, lanes: int) -> Expr:
        """The input's zero point as an int32 vector."""
        return self.zero(_INPUT_ZERO, lanes)

    def store(self, out: Buffer, cells: Sequence[Cell]) -> None:
        """Finish accumulators and store them; uint8 results are converted four at a time."""
        if self.epilogue.output_dtype == "float32":
            for cell in cells:
                value = self.em.let(self._finish(cell))
                index = [cell.pixel, cell.channel]
                self.em.store_first(out, index, value, cell.lanes, cell.valid)
            return
        pending: list[Cell] = []
        for cell in cells:
            if cell.lanes == cell.valid == self.vector_lanes:
                pending.append(cell)
                if len(pending) == _PACKED:
                    self._store_packed(out, pending)
                    pending = []
            else:
                self._store_single(out, cell)
        for cell in pending:
            self._store_single(out, cell)

    def _store_single(self, out: Buffer, cell: Cell) -> None:
        value = self.quantise(
            self._finish(cell), cell.lanes, relu=self.epilogue.clamps_at_zero_point
        )
        self.em.store_first(out, [cell.pixel, cell.channel], value, cell.lanes, cell.valid)

    def _store_packed(self, out: Buffer, cells: Sequence[Cell]) -> None:
        em, lanes = self.em, self.vector_lanes
        steps = [em.let(round_to_int(em.let(self._finish(cell)), lanes)) for cell in cells]
        zero = load(self.zeros, [_OUTPUT_ZERO], 1)
        packed = em.let(pack_to_uint8(steps, zero, lanes, relu=self.epilogue.clamps_at_zero_point))
        first = 0
        while first < len(cells):
            last = first + 1
            while last < len(cells) and cells[last].follows:
                last += 1
            if last - first == len(cells):
                value = packed
            else:
                value = em.let(shuffle([packed], range(first * lanes, last * lanes)))
            width = (last - first) * lanes
            index = [cells[first].pixel, cells[first].channel]
            em.store_first(out, index, value, width, width)
            first = last

    def _finish(self, cell: Cell) -> Expr:
        """The float32 vector in real units, or in steps of a uint8 output."""
        tail, lanes = self.epilogue, cell.lanes
        value = cell.accumulator
        if tail.integer:
            value = cast(value, "float32", lanes) * load(self.scale, [cell.channel], lanes)
        if not tail.activation_last:
            value = self._activate(value, lanes)
        if tail.residual is not None:
            residual = self._residual(cell.pixel, cell.channel, lanes)
            value = value + residual if tail.combine == "add" else value * residual
        return self._activate(value, lanes) if tail.activation_last else value

    def factor(self, place: int, lanes: int) -> Expr:
        """One of the float factors as a vector."""
        return broadcast(load(self.factors, [place], 1), lanes)

    def _activate(self, value: Expr, lanes: int) -> Expr:
        """The activation; all but the homogeneous ones turn real units into steps of a uint8."""
        tail = self.epilogue
        if tail.activation == Activation.NONE or tail.clamps_at_zero_point:
            return value
        if tail.activation == Activation.RELU:
            return maximum(value, splat(0.0, lanes))
        if tail.activation == Activation.HARDSWISH:
            return self._hardswish(value, lanes)
        function = gelu if tail.activation == Activation.GELU else silu
        value = function(self.em, value, lanes)
        return value * self.factor(_INVERSE, lanes) if tail.output_dtype == "uint8" else value

    def _hardswish(self, value: Expr, lanes: int) -> Expr:
        value = self.em.let(value)
        if self.epilogue.output_dtype == "uint8":
            slope, offset = self.factor(_GATE_SLOPE, lanes), self.factor(_GATE_OFFSET, lanes)
            top = self.factor(_INVERSE, lanes)
        else:
            slope, offset, top = splat(1 / 6, lanes), splat(0.5, lanes), splat(1.0, lanes)
        gate = minimum(maximum(value * slope + offset, splat(0.0, lanes)), top)
        return value * gate

    def _residual(self, pixel: Index, channel: Index, lanes: int) -> Expr:
        tail = self.epilogue
        value = load(self.residual, [pixel, channel], lanes)
        if tail.residual == "uint8":
            integer = cast(value, "int32", lanes) - self.zero(_RESIDUAL_ZERO, lanes)
            return cast(integer, "float32", lanes) * self.factor(_RESIDUAL_FACTOR, lanes)
        return value * self.factor(_RESIDUAL_FACTOR, lanes) if tail.residual_in_steps else value

    def quantise(self, value: Expr, lanes: int, *, relu: bool = False) -> Expr:
        """float32 in steps of the output -> uint8. `relu` clamps at the zero point."""
        em = self.em
        steps = em.let(round_to_int(em.let(value), lanes))
        if relu:
            steps = maximum(steps, splat(0, lanes, "int32"))
        steps = em.let(steps + self.zero(_OUTPUT_ZERO, lanes))
        if not relu:
            steps = maximum(steps, splat(0, lanes, "int32"))
        return em.let(cast(minimum(steps, splat(255, lanes, "int32")), "uint8", lanes))

    def quantise_real(self, value: Expr, lanes: int) -> Expr:
        """float32 in real units -> uint8."""
        return self.quantise(value * self.factor(_INVERSE, lanes), lanes)
