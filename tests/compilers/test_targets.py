"""Instruction sets: what a processor's flags allow, and clear refusals."""

from __future__ import annotations

import pytest

from compilers.errors import TargetError
from compilers.targets import ISAS, find_isa, host_isas, parse_cpu_flags, resolve_isa

AVX2 = ISAS["avx2"].cpu_flags
AVX512 = ISAS["avx512"].cpu_flags
VNNI = ISAS["avx512_vnni"].cpu_flags
# A Raspberry Pi 5, and a processor of ARM v8.0.
CORTEX_A76 = parse_cpu_flags(
    "Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm "
    "lrcpc dcpop asimddp"
)
CORTEX_A72 = parse_cpu_flags("Features : fp asimd evtstrm crc32 cpuid")


def test_flags_of_the_first_processor_are_read() -> None:
    text = "processor : 0\nflags\t\t: fpu avx2 fma\nbugs : x\n\nprocessor : 1\nflags : fpu\n"
    assert parse_cpu_flags(text) == {"fpu", "avx2", "fma"}
    assert parse_cpu_flags("processor : 0\nFeatures\t: fp asimddp\n") == {"fp", "asimddp"}
    assert parse_cpu_flags("bugs : x") == frozenset()


def test_instruction_sets_are_listed_best_first() -> None:
    assert host_isas(VNNI) == ("avx512_vnni", "avx512", "avx2")
    assert host_isas(AVX512) == ("avx512", "avx2")
    assert host_isas(AVX2 | {"avx_vnni"}) == ("avx2",)
    assert host_isas(frozenset({"sse2"})) == ()
    # Cascade Lake has VNNI without the byte permutes that the templates use.
    assert host_isas(VNNI - {"avx512vbmi"}) == ("avx512", "avx2")
    assert host_isas(CORTEX_A76) == ("neon_dot",)
    assert host_isas(CORTEX_A72) == ()


def test_native_is_the_best_that_the_cpu_executes() -> None:
    assert resolve_isa("native", VNNI).name == "avx512_vnni"
    assert resolve_isa("native", AVX2).name == "avx2"
    assert resolve_isa("avx2", VNNI) is ISAS["avx2"]
    assert resolve_isa("native", CORTEX_A76).name == "neon_dot"


def test_code_for_another_architecture_is_made_but_not_executed() -> None:
    isa = find_isa("neon_dot")
    assert isa.architecture == "aarch64"
    target = isa.tvm_target()
    assert target.attrs["mtriple"] == "aarch64-linux-gnu"
    assert target.attrs["mcpu"] == "cortex-a76"
    with pytest.raises(
        TargetError, match=r"asimddp.* for isa 'neon_dot' of aarch64.*: avx512_vnni"
    ):
        resolve_isa("neon_dot", VNNI)
    with pytest.raises(TargetError, match=r"unknown isa 'neon'.*neon_dot"):
        find_isa("neon")


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("neon", VNNI, "unknown isa 'neon'. Known: native, avx512_vnni, .*neon_dot"),
        ("avx512", AVX2, "lacks avx512bw.*executes: avx2"),
        ("avx2", frozenset(), "lacks.*fma.*executes: none"),
        ("native", frozenset(), "none of the supported"),
    ],
)
def test_refusals_say_what_the_cpu_has(name: str, flags: frozenset[str], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        resolve_isa(name, flags)
