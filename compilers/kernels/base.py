"""The contract between kernel templates and whoever places them into a network.

A `Kernel` describes one compiled function completely: shapes, element types, activation, where
the residual enters. It holds no weights and no quantisation constants; those are arguments of the
compiled function, so that layers and subnets of equal shape share one kernel.

Activations are NHWC images kept two-dimensional, `[pixels, channels]`, batch 1. A compiled
function takes DLPack tensors in this order:

    x [, residual], constants..., output

The memory of every tensor starts at a multiple of 64 bytes, which `tvm.runtime.tensor` and the
Relax VM guarantee.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compilers.errors import KernelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.kernels.tiling import Tile
    from compilers.targets import Isa

DType = Literal["float32", "uint8"]
DTYPES: tuple[DType, ...] = ("float32", "uint8")


@dataclass(frozen=True, slots=True)
class QParams:
    """Asymmetric per-tensor quantisation of a uint8 tensor: `real = (q - zero_point) * scale`.

    Raises:
        KernelError: `scale` is not positive and finite, or `zero_point` is outside 0..255.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < float("inf"):
            raise KernelError(f"quantisation scale {self.scale} is not positive and finite")
        if not 0 <= self.zero_point <= 255:
            raise KernelError(f"zero point {self.zero_point} is outside 0..255")


@dataclass(frozen=True, slots=True, eq=False)
class LayerParams:
    """What one layer feeds into its kernel, in the on-disk layout of the extracted subnet.

    Attributes:
        weight: float32, or int8 when the kernel's input is uint8. Convolution `[O, I, k, k]` (or
            `[O, I]` for `Gemm`), depthwise `[C, 1, k, k]`, squeeze-and-excite reduce `[D, C]`.
            None for kernels without weights.
        bias: `[O]`, float32, or int32 in units of `scale` when the kernel's input is uint8.
        scale: float32; `[O]` for integer kernels, `y = (accumulator + bias) * scale`, and
            `[O, groups of inputs]` for weight-only ones.
        input: quantisation of a uint8 input.
        residual: quantisation of a uint8 residual.
        output: quantisation of a uint8 output.
        expand_weight: squeeze-and-excite `[C, D]` float32.
        expand_bias: squeeze-and-excite `[C]` float32.
    """

    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    scale: NDArray[np.float32] | None = None
    input: QParams | None = None
    output: QParams | None = None
    residual: QParams | None = None
    expand_weight: NDArray[np.float32] | None = None
    expand_bias: NDArray[np.float32] | None = None


class Kernel(ABC):
    """Hashable description of one compiled function; subclasses are frozen dataclasses.

    Building the function is deterministic: equal descriptions give equal symbols and equal code
    in every process.
    """

    kind: ClassVar[str]

    if TYPE_CHECKING:
        # Fields of most kernels, class constants of `Quantize` and `Dequantize`.
        @property
        def input_dtype(self) -> DType:
            """Element type of `x`."""

        @property
        def output_dtype(self) -> DType:
            """Element type of the output."""

    def candidates(self, isa: Isa) -> tuple[Tile, ...]:
        """The register tiles that are worth a measurement, the template's own rule first.

        Empty for a template that leaves nothing to choose; see `TiledKernel`.
        """
        del isa
        return ()

    def symbol(self, isa: Isa, tile: Tile | None = None) -> str:
        """C identifier of the compiled function, unique per (kernel, ISA, threads, tile).

        Args:
            isa: Instruction set.
            tile: A register tile other than the template's rule.
        """
        described = ",".join(f"{f.name}={getattr(self, f.name)!s}" for f in fields(self))  # type: ignore[arg-type]
        target = isa.name if isa.threads == 1 else f"{isa.name}_{isa.threads}t"
        text = f"{target}:{self.kind}({described})"
        if tile is not None:
            text = f"{text}:{tile}"
        return f"netcarve_{self.kind}_{target}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @abstractmethod
    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """The scheduled function, its `global_symbol` set to `symbol(isa)`."""

    @abstractmethod
    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """Packed constants in argument order.

        Raises:
            KernelError: a parameter is missing, or has the wrong shape or element type.
        """

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of `x`: `[pixels, channels]`, or `[1, C, H, W]` for a network input."""

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, int]:
        """`[pixels, channels]`; a residual has this shape too."""


@dataclass(frozen=True)
class RowwiseKernel(Kernel):
    """A kernel from `[rows, channels]` to `[rows, channels]`.

    Attributes:
        rows: of both tensors.
        channels: of both tensors.

    Raises:
        KernelError: a size is below 1.
    """

    rows: int
    channels: int

    def __post_init__(self) -> None:
        if min(self.rows, self.channels) < 1:
            sizes = f"{self.rows} x {self.channels}"
            raise KernelError(f"{self.kind} of {sizes}: every size must be >= 1")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[rows, channels]."""
        return (self.rows, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[rows, channels]."""
        return (self.rows, self.channels)


class TiledKernel(Kernel):
    """A kernel whose register tile can be chosen. Its constants do not depend on the tile."""

    @abstractmethod
    def candidates(self, isa: Isa) -> tuple[Tile, ...]:
        """See `Kernel.candidates`: a few different tiles, at least the rule's."""

    @abstractmethod
    def prim_func(self, isa: Isa, tile: Tile | None = None) -> tirx.PrimFunc:
        """See `Kernel.prim_func`; `global_symbol` is `symbol(isa, tile)`.

        Args:
            isa: Instruction set.
            tile: One of `candidates(isa)`; the template's rule when None.
        """
