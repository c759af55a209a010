"""Instruction sets that the kernel templates are written for, and which of them this CPU executes.

An `Isa` fixes everything that code generation depends on, so that one kernel compiles to the same
code on every machine. It never follows the processor that happens to compile, which may be of
another architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from compilers.errors import TargetError

if TYPE_CHECKING:
    from tvm.target import Target

_AVX2_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"})
_AVX512_FLAGS = _AVX2_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# Everything that LLVM may pick for its "icelake-server": VBMI's byte permutes interleave the
# pixels of the integer depthwise kernel.
_ICELAKE_FLAGS = _AVX512_FLAGS | {
    "avx512_vnni", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq", "avx512ifma",
    "gfni", "vaes", "vpclmulqdq", "sha_ni", "adx", "rdseed", "clflushopt",
}  # fmt: skip
# Everything that LLVM may pick for its "cortex-a76".
_CORTEX_A76_FLAGS = frozenset({
    "fp", "asimd", "asimddp", "asimdrdm", "fphp", "asimdhp", "atomics", "crc32", "lrcpc",
    "aes", "pmull", "sha1", "sha2",
})  # fmt: skip

Architecture = Literal["x86_64", "aarch64"]
_TRIPLES: dict[Architecture, str] = {"aarch64": "aarch64-linux-gnu"}


@dataclass(frozen=True, slots=True)
class Isa:
    """One instruction set.

    Attributes:
        name: What users write: `avx512_vnni`, `avx512`, `avx2`, `neon_dot`.
        vector_lanes: float32 elements in one register.
        vector_registers: Vector registers that a kernel's tile may fill.
        int8_dot: How u8 x s8 products are summed exactly: `vpdpbusd`, `sdot` (of s8 x s8), or
            `widen` (to 16 bits, then vpmaddwd; never vpmaddubsw, whose 16-bit sums saturate).
        mcpu: LLVM processor name.
        cpu_flags: Names in /proc/cpuinfo that a processor needs.
        architecture: What `uname -m` says where it executes.
        threads: Threads over which a kernel divides its work where that pays. At run time TVM's
            thread pool must have as many (`TVM_NUM_THREADS`).
    """

    name: str
    vector_lanes: int
    vector_registers: int
    int8_dot: Literal["vpdpbusd", "widen", "sdot"]
    mcpu: str
    cpu_flags: frozenset[str]
    architecture: Architecture = "x86_64"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise TargetError(f"{self.threads} threads: must be >= 1")

    def with_threads(self, threads: int) -> Isa:
        """The same instruction set for kernels that use up to `threads` threads.

        Raises:
            TargetError: `threads` is below 1.
        """
        return replace(self, threads=threads)

    def tvm_target(self) -> Target:
        """The TVM target; LLVM's preference for 256-bit vectors is switched off."""
        from tvm.target import Target

        config: dict[str, object] = {"kind": "llvm", "mcpu": self.mcpu}
        if self.architecture in _TRIPLES:
            config["mtriple"] = _TRIPLES[self.architecture]
        if self.vector_lanes == 16:
            config["mattr"] = ["-prefer-256-bit"]
        return Target(config)


ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa("avx512_vnni", 16, 32, "vpdpbusd", "icelake-server", _ICELAKE_FLAGS),
        Isa("avx512", 16, 32, "widen", "x86-64-v4", _AVX512_FLAGS),
        Isa("avx2", 8, 16, "widen", "x86-64-v3", _AVX2_FLAGS),
        # ARM v8.2 with the optional dot product. Two of 32 registers hold operands on their way:
        # no multiplication takes one from memory.
        Isa("neon_dot", 4, 30, "sdot", "cortex-a76", _CORTEX_A76_FLAGS, "aarch64"),
    )
}
"""Every supported instruction set by name, the best of each architecture first."""


def parse_cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags of the first processor in the text of /proc/cpuinfo; empty when it has none.

    Linux calls them `flags` on x86 and `Features` on ARM.
    """
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@cache
def host_cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this machine's processor; empty where Linux does not tell."""
    path = Path("/proc/cpuinfo")
    return parse_cpu_flags(path.read_text()) if path.exists() else frozenset()


def host_isas(flags: frozenset[str] | None = None) -> tuple[str, ...]:
    """Names of the instruction sets that a processor with `flags` executes, best first.

    Args:
        flags: names as in /proc/cpuinfo; this machine's when None.
    """
    have = host_cpu_flags() if flags is None else flags
    return tuple(name for name, isa in ISAS.items() if isa.cpu_flags <= have)


def find_isa(name: str) -> Isa:
    """The instruction set called `name`, to compile for: this CPU need not execute it.

    Raises:
        TargetError: the name is unknown.
    """
    if name not in ISAS:
        raise TargetError(f"unknown isa {name!r}. Known: native, {', '.join(ISAS)}")
    return ISAS[name]


def resolve_isa(name: str, flags: frozenset[str] | None = None) -> Isa:
    """The instruction set called `name`, or for `native` the best one, to execute on the CPU.

    Raises:
        TargetError: the name is unknown, or the CPU does not execute that instruction set.
    """
    available = host_isas(flags)
    listed = ", ".join(available) or "none"
    if name == "native":
        if not available:
            raise TargetError(
                f"this CPU executes none of the supported instruction sets ({', '.join(ISAS)})"
            )
        return ISAS[available[0]]
    isa = find_isa(name)
    if name not in available:
        have = host_cpu_flags() if flags is None else flags
        missing = ", ".join(sorted(isa.cpu_flags - have))
        raise TargetError(
            f"this CPU lacks {missing} for isa {name!r} of {isa.architecture}. "
            f"It executes: {listed}"
        )
    return isa
