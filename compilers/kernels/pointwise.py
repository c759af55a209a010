"""Operators on single elements that no neighbouring kernel could take over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compilers.errors import KernelError
from compilers.kernels.base import DType, LayerParams, RowwiseKernel
from compilers.kernels.elementwise import each_row
from compilers.kernels.emitter import Emitter, Index, load
from compilers.kernels.epilogue import Cell, Combine, Epilogue, EpilogueCode
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa


@dataclass(frozen=True)
class Unary(RowwiseKernel):
    """`out = activation(x)`, quantised when the output is uint8.

    Arguments of the function: x, [factors, zeros,] output.
    """

    kind: ClassVar[str] = "unary"
    input_dtype: ClassVar[DType] = "float32"

    activation: Activation
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows x."""
        return Epilogue(self.activation, None, self.output_dtype, "float32", integer=False)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: the scalars of the quantisation."""
        del isa
        return self.epilogue.scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape)
        tail = EpilogueCode(em, self.epilogue, 0, isa.vector_lanes)
        out = em.argument("out", self.output_shape, self.output_dtype)

        def row(i: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                value = tail.as_accumulator(load(x, [i, channel], lanes), lanes)
                tail.store(out, [Cell(i, channel, lanes, lanes, value)])

            em.pieces(self.channels, isa.vector_lanes, piece)

        each_row(em, isa, self.rows, self.channels, row)
        return em.function(self.symbol(isa))


@dataclass(frozen=True)
class Binary(RowwiseKernel):
    """`out = activation(x + other)` or `activation(x * other)`, quantised when it is uint8.

    Arguments of the function: x, other, [factors, zeros,] output.

    Attributes:
        rows: of x and the output.
        channels: of all tensors.
        combine: whether `other` is added or multiplied.
        broadcast: whether `other` has one row, for every row of x.
        activation: none, or what is applied.
        other_dtype: element type of `other`; float32 when it has one row.
        output_dtype: element type of the output.
    """

    kind: ClassVar[str] = "binary"
    input_dtype: ClassVar[DType] = "float32"

    combine: Combine = "add"
    broadcast: bool = False
    activation: Activation = Activation.NONE
    other_dtype: DType = "float32"
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.broadcast and self.other_dtype != "float32":
            raise KernelError(f"a row of {self.other_dtype}: it must be float32")
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows x; `other` when it has as many rows."""
        if self.broadcast:
            return Epilogue(self.activation, None, self.output_dtype, "float32", integer=False)
        return Epilogue(
            self.activation, self.other_dtype, self.output_dtype, "float32", integer=False,
            combine=self.combine, activation_last=self.activation != Activation.NONE,
        )  # fmt: skip

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: the scalars of the quantisation; `other` is `residual`."""
        del isa
        return self.epilogue.scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape)
        rows = 1 if self.broadcast else self.rows
        other = em.argument("other", (rows, self.channels), self.other_dtype)
        residual = None if self.broadcast else other
        tail = EpilogueCode(em, self.epilogue, 0, isa.vector_lanes, residual)
        out = em.argument("out", self.output_shape, self.output_dtype)

        def row(i: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                value = load(x, [i, channel], lanes)
                if self.broadcast:
                    factor = load(other, [0, channel], lanes)
                    value = value + factor if self.combine == "add" else value * factor
                value = tail.as_accumulator(value, lanes)
                tail.store(out, [Cell(i, channel, lanes, lanes, value)])

            em.pieces(self.channels, isa.vector_lanes, piece)

        each_row(em, isa, self.rows, self.channels, row)
        return em.function(self.symbol(isa))
