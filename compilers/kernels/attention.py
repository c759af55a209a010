"""Scaled dot-product attention (Vaswani et al., 2017) of all heads as one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compilers.errors import KernelError
from compilers.kernels.attention_code import AttentionCode
from compilers.kernels.base import DType, Kernel, LayerParams
from compilers.kernels.epilogue import Epilogue
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa


@dataclass(frozen=True)
class Attention(Kernel):
    """`out[:, h] = activation(softmax(scale * q_h @ k_g.T + bias_h) @ v_g)` of every head h, where
    g is `h // (heads // kv_heads)`.

    Queries, keys and values are columns of row-major tensors, which may be one tensor: head h of
    the queries begins at column `q_offset + h * head_dim`, head g of the keys at
    `k_offset + g * head_dim`, of the values at `v_offset + g * value_dim`.

    Arguments of the function: q [queries, q_stride], k [keys, k_stride], v [keys, v_stride],
    [cos [queries, head_dim], sin [queries, head_dim] (rotary embedding, Su et al., 2021, in the
    half-rotating form of Llama),] [bias [heads, queries, keys],] [factors, zeros,]
    output [queries, heads * value_dim]. All float32 but the output.

    Attributes:
        queries: rows of q.
        keys: rows of k and v.
        heads: query heads, a multiple of `kv_heads` (grouped-query attention).
        kv_heads: heads of keys and values.
        head_dim: a multiple of 8; of 16 with `rope`.
        value_dim: a multiple of 8.
        scale: of the scores, usually head_dim ** -0.5.
        causal: query i sees the keys 0..i only; there are as many keys as queries.
        q_stride: columns of q's tensor; likewise `k_stride`, `v_stride`.
        q_offset: first column of the queries; likewise `k_offset`, `v_offset`.
        rope: rotate queries and keys; there are as many keys as queries.
        bias: add the argument `bias` to the scores, where -inf masks a key; not with `causal`.
        activation: none, or what is applied to the sums of values.
        output_dtype: of the output.
    """

    kind: ClassVar[str] = "attention"
    input_dtype: ClassVar[DType] = "float32"

    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    causal: bool
    q_stride: int
    q_offset: int
    k_stride: int
    k_offset: int
    v_stride: int
    v_offset: int
    rope: bool = False
    bias: bool = False
    activation: Activation = Activation.NONE
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        _ = self.epilogue
        if min(self.queries, self.keys, self.heads, self.kv_heads) < 1:
            raise KernelError(
                f"attention of {self.queries} queries and {self.keys} keys, {self.heads} heads "
                f"and {self.kv_heads} of keys: every size must be >= 1"
            )
        if self.heads % self.kv_heads:
            raise KernelError(
                f"{self.heads} heads do not share {self.kv_heads} heads of keys evenly"
            )
        for what, size, multiple in (
            ("head_dim", self.head_dim, 16 if self.rope else 8),
            ("value_dim", self.value_dim, 8),
        ):
            if size < 1 or size % multiple:
                raise KernelError(f"{what} {size} is not a multiple of {multiple}")
        if (self.causal or self.rope) and self.queries != self.keys:
            raise KernelError(
                f"{self.queries} queries and {self.keys} keys: causal masks and rotary "
                "embeddings need as many keys as queries"
            )
        if self.causal and self.bias:
            raise KernelError("causal attention with a bias: the bias can hold the mask (-inf)")
        if not 0.0 < self.scale < float("inf"):
            raise KernelError(f"scale {self.scale} is not positive and finite")
        for what, offset, columns, stride in (
            ("q", self.q_offset, self.heads * self.head_dim, self.q_stride),
            ("k", self.k_offset, self.kv_heads * self.head_dim, self.k_stride),
            ("v", self.v_offset, self.kv_heads * self.value_dim, self.v_stride),
        ):
            if not 0 <= offset <= stride - columns:
                raise KernelError(
                    f"{what}: {columns} columns from {offset} on leave a tensor of {stride}"
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[queries, q_stride]."""
        return (self.queries, self.q_stride)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[queries, heads * value_dim]."""
        return (self.queries, self.heads * self.value_dim)

    @property
    def epilogue(self) -> Epilogue:
        """The activation, and the conversion of the output."""
        return Epilogue(self.activation, None, self.output_dtype, "float32", integer=False)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: the scalars of `params.output`; rope and bias are inputs."""
        del isa
        return self.epilogue.scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        return AttentionCode(self, isa).build()
