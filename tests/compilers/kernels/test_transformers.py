"""Attention, softmax and normalisation on every instruction set."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from compilers.errors import KernelError
from compilers.kernel_library import compile_kernel
from compilers.kernels import Attention, Norm, Softmax
from compilers.targets import ISAS, host_isas
from spaces.layer_spec import Activation
from tests.compilers.kernels.children import run_checks

# A minute of compiling where nothing else runs.
pytestmark = pytest.mark.timeout(900)


def every(isa: str) -> int:
    # avx512 has the float instructions of avx512_vnni.
    return {"avx512": 5, "neon_dot": 3}.get(isa, 1)


@pytest.mark.slow
def test_outputs_match_torch_and_stay_in_bounds(executed_isa: str) -> None:
    isa = executed_isa
    result = run_checks("transformer_checks.py", isa, str(every(isa)))
    assert result["failures"] == []
    assert result["cases"] * every(isa) >= 30
    assert result["elements"] > 1000
    assert result["differing"] <= 2e-4 * result["elements"]


@pytest.mark.slow
def test_two_threads_give_the_same_bits_as_one() -> None:
    result = run_checks("transformer_checks.py", host_isas()[0], "threads")
    assert result["failures"] == []
    assert result["cases"] == 4


def inner_loops(code: str) -> Iterator[list[str]]:
    """The instructions of every loop without a label inside."""
    lines = code.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    for end, line in enumerate(lines):
        jump = re.fullmatch(r"\tj\w+\t(\.LBB\w+)", line)
        start = labels.get(jump[1], end) if jump else end
        body = lines[start + 1 : end]
        if start < end and not labels.keys() & {inside[:-1] for inside in body}:
            yield [inside for inside in body if re.match(r"\tv?[a-z]", inside)]


def fused(tokens: int, heads: int, kv_heads: int, **options: bool) -> Attention:
    """Attention over heads of 64 in one tensor of queries, keys and values."""
    keys, values, stride = (64 * count for count in (heads, heads + kv_heads, heads + 2 * kv_heads))
    return attention(
        queries=tokens, keys=tokens, heads=heads, kv_heads=kv_heads, head_dim=64, value_dim=64,
        scale=0.125, q_stride=stride, k_stride=stride, k_offset=keys, v_stride=stride,
        v_offset=values, **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("isa", dict.fromkeys((host_isas()[0], host_isas()[-1])))
def test_accumulators_of_products_stay_in_registers(isa: str) -> None:
    rotated = {"causal": True, "rope": True}
    for kernel in (fused(197, 3, 3), fused(128, 8, 2, **rotated)):
        code = compile_kernel(kernel, ISAS[isa]).inspect_source("asm")
        assert ("zmm" in code) == isa.startswith("avx512"), kernel
        products = 0
        for loop in inner_loops(code):
            # Products add to accumulators in place (231), polynomials do not (213, 132).
            sums = sum("vfmadd231ps" in line for line in loop)
            if sums >= 8 and sums == sum("vfmadd" in line for line in loop):
                products += 1
                assert not any("(%rsp)" in line for line in loop), "\n".join(loop)
        assert products >= 2, kernel


def attention(**changes: object) -> Attention:
    """2 heads of 16 over 4 tokens, in one tensor of 96 columns."""
    fields: dict[str, object] = {
        "queries": 4, "keys": 4, "heads": 2, "kv_heads": 2, "head_dim": 16, "value_dim": 16,
        "scale": 0.25, "causal": False, "q_stride": 96, "q_offset": 0, "k_stride": 96,
        "k_offset": 32, "v_stride": 96, "v_offset": 64,
    }  # fmt: skip
    return Attention(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": 0}, "0 queries"),
        ({"heads": 3, "q_stride": 112, "k_stride": 112}, "3 heads"),
        ({"head_dim": 12}, "head_dim 12"),
        ({"head_dim": 8, "rope": True}, "head_dim 8 is not a multiple of 16"),
        ({"value_dim": 4}, "value_dim 4"),
        ({"queries": 3, "causal": True}, "3 queries and 4 keys"),
        ({"queries": 3, "rope": True}, "3 queries and 4 keys"),
        ({"causal": True, "bias": True}, "bias"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"v_offset": 65}, "v: 32 columns from 65 on leave a tensor of 96"),
        ({"output_dtype": "int8"}, "'int8'"),
        ({"activation": "tanh"}, "'tanh'"),
    ],
)
def test_attention_that_no_template_covers_is_refused(
    changes: dict[str, object], words: str
) -> None:
    attention()
    with pytest.raises(KernelError, match=words):
        attention(**changes)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Norm(0, 8), "0 rows"),
        (lambda: Norm(4, 12), "12 channels"),
        (lambda: Norm(4, 8, -1.0), "epsilon -1.0"),
        (lambda: Norm(4, 8, input_dtype="int8"), "'int8'"),
        (lambda: Softmax(4, 0), "4 x 0"),
    ],
)
def test_other_kernels_that_no_template_covers_are_refused(build: object, words: str) -> None:
    with pytest.raises(KernelError, match=words):
        build()  # type: ignore[operator]


def test_symbols_differ_in_every_field() -> None:
    isa = ISAS["avx2"]
    kernels = [
        attention(),
        attention(causal=True),
        attention(rope=True),
        attention(bias=True),
        attention(scale=0.5),
        attention(output_dtype="uint8"),
        attention(activation=Activation.HARDSWISH),
        attention(q_offset=32, k_offset=0),
        Norm(4, 8),
        Norm(4, 8, centred=False),
        Norm(4, 8, 1e-6),
        Softmax(4, 8),
    ]
    assert len({kernel.symbol(isa) for kernel in kernels}) == len(kernels)
