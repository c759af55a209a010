"""Every kernel on every instruction set, emulated where it is not this machine's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from compilers.kernel_library import compile_kernel
from compilers.kernels import Conv, Depthwise, Gemm, WeightOnlyGemm
from compilers.kernels.base import DTYPES, Kernel
from compilers.targets import ISAS, Isa, host_isas
from compilers.toolchain import is_foreign
from spaces.layer_spec import Activation
from tests.compilers.kernels.children import run_checks

# A minute of compiling where nothing else runs.
pytestmark = pytest.mark.timeout(900)

RELU = Activation.RELU

_DIVIDED = [isa for isa in host_isas() if isa != "avx512"]
"""Where threads are tested: loops are divided alike, and avx512 has nothing of its own."""


def assembly(isa: Isa) -> Iterator[tuple[str, str]]:
    """The code of some kernels with matrix products, by what describes them."""
    kernels: list[Kernel] = [
        *(Gemm(36, 64, 96, dtype, RELU, None, dtype) for dtype in DTYPES),
        *(Conv(6, 6, 16, 48, 3, 1, "nhwc", dtype, RELU, None, dtype) for dtype in DTYPES),
        *(
            Depthwise(12, 12, channels, kernel, stride, dtype, RELU, dtype)
            for channels, kernel, stride in ((96, 3, 1), (40, 5, 2), (8, 7, 1))
            for dtype in DTYPES
        ),
        Gemm(36, 64, 96, "uint8", RELU, None, "uint8", weight_bits=4),
        Conv(6, 6, 16, 48, 3, 1, "nhwc", "uint8", RELU, None, "uint8", weight_bits=4),
        Depthwise(12, 12, 96, 3, 1, "uint8", RELU, "uint8", weight_bits=4),
        *(WeightOnlyGemm(m, 128, 96, bits, 64) for m in (1, 14) for bits in (4, 8)),
    ]
    for kernel in kernels:
        yield str(kernel), compile_kernel(kernel, isa).inspect_source("asm")
    two = isa.with_threads(2)
    for kernel in (Gemm(197, 64, 400), Conv(28, 28, 64, 96, 3, 2), Depthwise(56, 56, 96, 3, 1)):
        yield f"two threads: {kernel}", compile_kernel(kernel, two).inspect_source("asm")


def every(isa: str) -> int:
    # avx512 shares its arithmetic with avx2 and its vectors with avx512_vnni.
    return {"avx512": 3, "neon_dot": 5}.get(isa, 1)


FOREIGN = [name for name, isa in ISAS.items() if is_foreign(isa.architecture)]


@pytest.mark.slow
def test_outputs_match_the_references_and_stay_in_bounds(executed_isa: str) -> None:
    isa = executed_isa
    result = run_checks("kernel_checks.py", isa, str(every(isa)))
    assert result["failures"] == []
    assert result["cases"] * every(isa) > 100
    assert result["elements"] * every(isa) > 20_000
    assert result["differing"] <= 1e-4 * result["elements"]


@pytest.mark.slow
@pytest.mark.parametrize("isa", _DIVIDED)
def test_two_threads_give_the_same_bits_as_one(isa: str) -> None:
    result = run_checks("thread_checks.py", isa)
    assert result["failures"] == []
    assert result["cases"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_the_code_uses_the_instructions_of_its_isa_and_no_others(isa: str) -> None:
    for kernel, code in assembly(ISAS[isa]):
        instructions = re.findall(r"^\t(v\w+)", code, re.MULTILINE)
        multiply_adds = [name for name in instructions if name.startswith("vfmadd")]
        dots = [name for name in instructions if name in ("vpdpbusd", "vpmaddwd")]
        if "uint8" in kernel:
            # Neither float sums nor the 16-bit sums of vpmaddubsw, which saturate.
            assert multiply_adds == [], kernel
            expected = "vpdpbusd" if isa == "avx512_vnni" else "vpmaddwd"
            assert len(dots) >= 8, kernel
            assert set(dots) == {expected}, kernel
        else:
            assert multiply_adds, kernel
            assert dots == [], kernel
        assert "vpmaddubsw" not in instructions
        if "weight_bits=4" in kernel and isa == "avx512_vnni":
            assert "vgf2p8affineqb" in instructions, kernel
        if kernel.startswith("WeightOnlyGemm") and "bits=4" in kernel:
            looked_up = {"vpermps", "vpermd"} & set(instructions)
            assert bool(looked_up) == isa.startswith("avx512"), kernel
        if "channels=8," not in kernel:
            assert ("zmm" in code) == isa.startswith("avx512"), kernel
        # Workspace calls mean accumulators in memory, and an allocation in every iteration where
        # threads divide a loop.
        assert "AllocWorkspace@" not in code, kernel
        assert ("ParallelLaunch" in code) == kernel.startswith("two threads"), kernel


@pytest.mark.slow
@pytest.mark.skipif("neon_dot" not in FOREIGN, reason="this machine is of that architecture")
def test_code_for_arm_sums_integers_by_sdot() -> None:
    for kernel, code in assembly(ISAS["neon_dot"]):
        instructions = re.findall(r"^\t([a-z]\w+)", code, re.MULTILINE)
        dots, multiply_adds = instructions.count("sdot"), instructions.count("fmla")
        if "uint8" in kernel:
            assert dots >= 8, kernel
            assert multiply_adds == 0, kernel
            # Neither products of two elements nor those of the later usdot.
            assert not {"smlal", "umlal", "mla", "usdot", "udot"} & set(instructions), kernel
        else:
            assert multiply_adds >= 8, kernel
            assert dots == 0, kernel
        assert "AllocWorkspace" not in code, kernel
