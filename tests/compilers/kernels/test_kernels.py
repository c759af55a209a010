"""Every kernel on every instruction set, emulated where it is not this machine's, in children."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compilers.targets import ISAS, host_isas
from compilers.toolchain import is_foreign, tool_name

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).parent / "kernel_checks.py"

ASSEMBLY = """
import json, sys
from compilers.kernel_library import compile_kernel
from compilers.kernels import Conv, Depthwise, Gemm, WeightOnlyGemm
from compilers.targets import ISAS
isa = ISAS[sys.argv[1]]
kernels = [
    *(Gemm(36, 64, 96, dtype, "relu", None, dtype) for dtype in ("float32", "uint8")),
    *(Conv(6, 6, 16, 48, 3, 1, "nhwc", dtype, "relu", None, dtype)
      for dtype in ("float32", "uint8")),
    *(Depthwise(12, 12, channels, kernel, stride, dtype, "relu", dtype)
      for channels, kernel, stride in ((96, 3, 1), (40, 5, 2), (8, 7, 1))
      for dtype in ("float32", "uint8")),
]
kernels += [
    Gemm(36, 64, 96, "uint8", "relu", None, "uint8", weight_bits=4),
    Conv(6, 6, 16, 48, 3, 1, "nhwc", "uint8", "relu", None, "uint8", weight_bits=4),
    Depthwise(12, 12, 96, 3, 1, "uint8", "relu", "uint8", weight_bits=4),
    *(WeightOnlyGemm(m, 128, 96, bits, 64) for m in (1, 14) for bits in (4, 8)),
]
codes = {str(k): compile_kernel(k, isa).inspect_source("asm") for k in kernels}
two = isa.with_threads(2)
for kernel in (Gemm(197, 64, 400), Conv(14, 14, 64, 96, 3, 1), Depthwise(56, 56, 96, 3, 1)):
    codes[f"two threads: {kernel}"] = compile_kernel(kernel, two).inspect_source("asm")
print(json.dumps(codes))
"""


def child(*arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TVM_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()[-1]


def every(isa: str) -> int:
    # avx512 shares its arithmetic with avx2 and its vectors with avx512_vnni.
    return {"avx512": 3, "neon_dot": 5}.get(isa, 1)


FOREIGN = [name for name, isa in ISAS.items() if is_foreign(isa.architecture)]


def emulated(isa: str) -> bool:
    """Whether what emulating a foreign instruction set takes is installed."""
    architecture = ISAS[isa].architecture
    needed = (f"qemu-{architecture}", tool_name(architecture, "g++"))
    return all(map(shutil.which, needed))


def executed() -> list[Any]:
    """Instruction sets of this machine and emulated ones; those that need more are skipped."""
    missing = pytest.mark.skip(reason="needs qemu-user and the cross compiler")
    foreign = [pytest.param(isa, marks=() if emulated(isa) else missing) for isa in FOREIGN]
    return [*host_isas(), *foreign]


Children = dict[tuple[str, str], Future[str]]


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """(What, ISA) -> what a child printed, one child per processor at a time."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outputs = {
            ("outputs", isa): pool.submit(child, str(CHECKS), isa, str(every(isa)))
            for isa in (*host_isas(), *filter(emulated, FOREIGN))
        }
        assembly = {
            ("assembly", isa): pool.submit(child, "-c", ASSEMBLY, isa)
            for isa in (*host_isas(), *FOREIGN)
        }
        threads = {
            ("threads", isa): pool.submit(child, str(CHECKS), isa, "threads") for isa in host_isas()
        }
        yield outputs | assembly | threads


@pytest.mark.slow
@pytest.mark.parametrize("isa", executed())
def test_outputs_match_the_references_and_stay_in_bounds(isa: str, children: Children) -> None:
    result = json.loads(children["outputs", isa].result())
    assert result["failures"] == []
    assert result["cases"] * every(isa) > 100
    assert result["elements"] * every(isa) > 20_000
    assert result["differing"] <= 1e-4 * result["elements"]


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_two_threads_give_the_same_bits_as_one(isa: str, children: Children) -> None:
    result = json.loads(children["threads", isa].result())
    assert result["failures"] == []
    assert result["cases"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_the_code_uses_the_instructions_of_its_isa_and_no_others(
    isa: str, children: Children
) -> None:
    for kernel, code in json.loads(children["assembly", isa].result()).items():
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
def test_code_for_arm_sums_integers_by_sdot(children: Children) -> None:
    for kernel, code in json.loads(children["assembly", "neon_dot"].result()).items():
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
