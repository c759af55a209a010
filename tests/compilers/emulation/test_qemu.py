"""Programs of another architecture: what they print, how they fail, how much they execute."""

from __future__ import annotations

import signal

import pytest

from compilers.emulation import Emulator, qemu
from compilers.errors import (
    BuildError,
    ChildCrashError,
    ChildTimeoutError,
    DeviceError,
    MeasurementError,
)
from compilers.targets import find_isa

PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <cstring>
int main(int argc, char** argv) {
  static_assert(sizeof(void*) == 8 && __aarch64__);
  if (!std::strcmp(argv[1], "write")) {
    std::FILE* file = std::fopen(argv[2], "w");
    std::fputs("done", file);
    return std::fclose(file);
  }
  if (!std::strcmp(argv[1], "fail")) return std::fputs("no luck", stderr), 3;
  if (!std::strcmp(argv[1], "crash")) std::abort();
  if (!std::strcmp(argv[1], "hang")) for (volatile int i = 0;; ++i) {}
  for (volatile int i = 0; i < std::atoi(argv[1]); i = i + 1) {}
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(emulator, tmp_path_factory):
    source = tmp_path_factory.mktemp("program") / "program.cc"
    source.write_text(PROGRAM)
    return emulator.compile(source, [])


def test_a_program_runs_and_its_failures_are_told_apart(emulator, program, tmp_path, monkeypatch):
    emulator.run(program, ["write", tmp_path / "out"])
    assert (tmp_path / "out").read_text() == "done"
    with pytest.raises(MeasurementError, match=r"program ended with status 3.*no luck"):
        emulator.run(program, ["fail"])
    with pytest.raises(ChildCrashError) as crash:
        emulator.run(program, ["crash"])
    assert crash.value.signal == signal.SIGABRT
    monkeypatch.setattr(qemu, "RUN_TIMEOUT", 0.5)
    with pytest.raises(ChildTimeoutError, match=r"longer than 0\.5 s"):
        emulator.run(program, ["hang"])


def test_instructions_are_counted(emulator, program):
    few, some, many = (emulator.count(program, [str(n)]) for n in (0, 10_000, 20_000))
    assert few > 1000, "the dynamic linker and the C library's start are counted too"
    loop = some - few
    # Load, add, store, load, call of atoi, compare and branch.
    assert 10 * 10_000 < loop < 200 * 10_000
    assert abs((many - some) / loop - 1) < 0.05


def test_programs_are_compiled_once(emulator, program, tmp_path):
    source = tmp_path / "program.cc"
    source.write_text(PROGRAM)
    first = emulator.compile(source, [])
    before = first.stat().st_mtime_ns
    assert emulator.compile(source, []) == first
    assert first.stat().st_mtime_ns == before
    source.write_text(PROGRAM + "\n// changed")
    assert emulator.compile(source, []) != first
    source.write_text("int main( {")
    with pytest.raises(BuildError, match=r"program\.cc failed: .*error"):
        emulator.compile(source, [])


@pytest.mark.parametrize(
    ("missing", "package"),
    [("qemu-aarch64", "qemu-user"), ("aarch64-linux-gnu-g++", "g\\+\\+-aarch64-linux-gnu")],
)
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, missing, package):
    monkeypatch.setattr("compilers.toolchain.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else f"/bin/{name}")
    name = missing.replace("+", r"\+")
    with pytest.raises(DeviceError, match=rf"{name}.*apt-get install {package}"):
        Emulator(find_isa("neon_dot"), tmp_path)
