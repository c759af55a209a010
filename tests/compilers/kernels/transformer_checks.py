"""Run in a child process: attention, softmax and normalisation of one ISA against torch in float64.

    python transformer_checks.py ISA EVERY
    python transformer_checks.py ISA threads

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from case_execution import check, compare_threads
from kernel_case import DTYPES, INPUT, OUTPUT, Case, draw, real, stored

from compilers.kernels import Attention, Norm, Softmax
from compilers.kernels.base import LayerParams
from compilers.targets import ISAS, Isa
from spaces.layer_spec import Activation
from supernet.activations import apply_activation


def fused(
    tokens: int, heads: int, kv_heads: int, head_dim: int, value_dim: int, **options: bool | str
) -> Attention:
    """Attention that reads one tensor of queries, keys and values side by side."""
    keys = heads * head_dim
    values = keys + kv_heads * head_dim
    stride = values + kv_heads * value_dim
    columns = (stride, 0, stride, keys, stride, values)
    sizes = (heads, kv_heads, head_dim, value_dim, head_dim**-0.5)
    causal = bool(options.pop("causal", False))
    return Attention(tokens, tokens, *sizes, causal, *columns, **options)  # type: ignore[arg-type]


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The rotary embedding as in Llama."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def attention_case(kernel: Attention, rng: np.random.Generator, spread: float = 1.0) -> Case:
    """Random tensors; one with all columns where the kernel reads one.

    Args:
        kernel: what is computed.
        rng: random numbers.
        spread: standard deviation of queries, keys and values.
    """
    q = draw(rng, kernel.input_shape, "float32") * np.float32(spread)
    k, v = q, q
    if kernel.k_stride != kernel.q_stride:
        k = draw(rng, (kernel.keys, kernel.k_stride), "float32")
        v = draw(rng, (kernel.keys, kernel.v_stride), "float32")

    def heads(tensor: np.ndarray, offset: int, count: int, dim: int) -> torch.Tensor:
        part = torch.from_numpy(tensor[:, offset : offset + count * dim]).double()
        return part.view(-1, count, dim).transpose(0, 1)

    query = heads(q, kernel.q_offset, kernel.heads, kernel.head_dim)
    key = heads(k, kernel.k_offset, kernel.kv_heads, kernel.head_dim)
    value = heads(v, kernel.v_offset, kernel.kv_heads, kernel.value_dim)
    inputs = [k, v]
    if kernel.rope:
        rates = 10000 ** -(torch.arange(0, kernel.head_dim, 2) / kernel.head_dim)
        angles = torch.outer(torch.arange(kernel.keys), rates).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        query, key = rotated(query, cos, sin), rotated(key, cos, sin)
        inputs += [cos.numpy(), sin.numpy()]
    bias = None
    if kernel.bias:
        table = draw(rng, (kernel.heads, kernel.queries, kernel.keys), "float32")
        if kernel.keys > 1:
            table[:, :, -1] = -np.inf
        inputs.append(table)
        bias = torch.from_numpy(table).double()
    y = F.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=None if bias is None else bias[None],
        is_causal=kernel.causal,
        scale=kernel.scale,
        enable_gqa=True,
    )
    y = apply_activation(y, kernel.activation)
    expected = y[0].transpose(0, 1).reshape(kernel.output_shape).numpy()
    params = LayerParams(output=OUTPUT)
    return Case(
        kernel,
        q,
        None,
        params,
        stored(expected, kernel.output_dtype),
        inputs=tuple(inputs),
    )


def norm_case(kernel: Norm, rng: np.random.Generator, mean: float = 0.0) -> Case:
    """LayerNorm or RMSNorm; `mean` is added to float32 inputs."""
    x = draw(rng, kernel.input_shape, kernel.input_dtype)
    if kernel.input_dtype == "float32":
        x += np.float32(mean)
    gain, shift = (draw(rng, (kernel.channels,), "float32") for _ in range(2))
    if not kernel.centred:
        shift[:] = 0
    value, weight = torch.from_numpy(real(x, INPUT)), torch.from_numpy(gain).double()
    shape = (kernel.channels,)
    if kernel.centred:
        y = F.layer_norm(value, shape, weight, torch.from_numpy(shift).double(), kernel.epsilon)
    else:
        y = F.rms_norm(value, shape, weight, kernel.epsilon)
    params = LayerParams(weight=gain, bias=shift, input=INPUT, output=OUTPUT)
    return Case(kernel, x, None, params, stored(y.numpy(), kernel.output_dtype))


def softmax_case(kernel: Softmax, rng: np.random.Generator, spread: float) -> Case:
    x = draw(rng, kernel.input_shape, "float32") * np.float32(spread)
    expected = torch.softmax(torch.from_numpy(x).double(), -1).numpy()
    return Case(kernel, x, None, LayerParams(), expected)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Odd numbers of tokens and columns, every option, both output types."""
    attentions = [
        fused(197, 2, 2, 64, 64),
        fused(49, 2, 2, 32, 32, output_dtype="uint8"),
        fused(50, 4, 2, 64, 64, causal=True, rope=True),
        fused(37, 4, 1, 32, 40, causal=True, rope=True, output_dtype="uint8"),
        fused(100, 2, 2, 16, 64, bias=True),
        fused(25, 2, 2, 16, 64, bias=True, output_dtype="uint8"),
        fused(36, 3, 3, 16, 48, bias=True, activation=Activation.HARDSWISH),
        fused(16, 2, 2, 16, 32, activation=Activation.HARDSWISH, output_dtype="uint8"),
        fused(9, 2, 2, 16, 40, activation=Activation.RELU, output_dtype="uint8"),
        fused(1, 2, 1, 64, 64, causal=True, rope=True),
        fused(19, 1, 1, 40, 24, causal=True),
        fused(17, 2, 1, 48, 8, rope=True),
        fused(33, 3, 3, 8, 24),
        Attention(1, 77, 4, 2, 32, 64, 0.2, False, 128, 0, 72, 8, 136, 0, bias=True),
        Attention(5, 130, 2, 2, 24, 16, 0.2, False, 60, 9, 50, 1, 36, 3),
    ]
    for kernel in attentions:
        yield attention_case(kernel, rng)
    # Scores around +-100.
    yield attention_case(fused(21, 2, 2, 16, 16), rng, spread=5.0)
    for rows, channels in ((197, 192), (1, 8), (7, 72), (3, 520)):
        for centred in (True, False):
            yield norm_case(Norm(rows, channels, 1e-5, centred), rng)
    for source in DTYPES:
        for centred in (True, False):
            yield norm_case(Norm(9, 136, 0.01, centred, source, "uint8"), rng)
    yield norm_case(Norm(9, 24, 1e-6, True, "uint8"), rng)
    for rows, channels, spread in ((7, 197, 1.0), (3, 5, 30.0), (2, 16, 1.0), (1, 1, 1.0)):
        yield softmax_case(Softmax(rows, channels), rng, spread)


def check_threads(isa: Isa) -> dict[str, object]:
    """Which kernels give other bits with two threads, or are not divided at all."""
    rng = np.random.default_rng(7)
    cases = [
        attention_case(fused(197, 3, 3, 32, 32), rng),
        attention_case(fused(75, 4, 2, 64, 64, causal=True, rope=True), rng),
        norm_case(Norm(197, 768), rng),
        softmax_case(Softmax(211, 201), rng, 1.0),
    ]
    failures = [f"{case.kernel}: {text}" for case in cases for text in compare_threads(case, isa)]
    return {"cases": len(cases), "failures": failures}


if __name__ == "__main__":
    isa = ISAS[sys.argv[1]]
    if sys.argv[2] == "threads":
        result = check_threads(isa)
    else:
        every_case = cases(np.random.default_rng(7))
        result = check(isa, islice(every_case, 0, None, int(sys.argv[2])))
    print(json.dumps(result))
