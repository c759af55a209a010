"""qemu-user: runs a program for another architecture, and counts its instructions."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from compilers.errors import (
    BuildError,
    ChildCrashError,
    ChildTimeoutError,
    DeviceError,
    MeasurementError,
)
from compilers.targets import Isa
from compilers.toolchain import find_tool
from spaces.files import atomic_write_bytes

COMPILE_TIMEOUT = 300.0
RUN_TIMEOUT = 600.0
_SOURCES = Path(__file__).parent
_LONGEST = 1500
_FIRST_API_2 = 9
"""Major version of QEMU whose plugins are of the second interface."""


class Emulator:
    """The processor that an instruction set stands for, emulated on this machine.

    What it needs are Debian's qemu-user and the cross compiler, whose C library the programs use.

    Args:
        isa: Instruction set; LLVM's name of its processor is qemu's too.
        cache: Folder of what it compiles for itself.

    Raises:
        DeviceError: qemu or the cross compiler is missing; the message says how to install it.
    """

    def __init__(self, isa: Isa, cache: Path) -> None:
        self.isa = isa
        self.cache = Path(cache)
        name = f"qemu-{isa.architecture}"
        qemu = shutil.which(name)
        if qemu is None:
            raise DeviceError(
                f"no {name} to emulate {isa.architecture}; "
                "install it (for example: apt-get install qemu-user)"
            )
        self.qemu = qemu
        try:
            _, self.compiler = find_tool(isa.architecture, "compiler", ("g++",))
        except BuildError as error:
            raise DeviceError(str(error)) from error

    @cached_property
    def version(self) -> str:
        """qemu's version, as it prints it."""
        said = subprocess.run([self.qemu, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"version (\S+)", said.stdout)
        return found[1] if found else "unknown"

    @cached_property
    def system(self) -> Path:
        """Folder that holds lib/ with the C library of the architecture."""
        done = subprocess.run(
            [self.compiler, "-print-file-name=libc.so.6"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        library = Path(done.stdout.strip())
        if not library.is_absolute():
            raise DeviceError(
                f"{self.compiler} has no C library for {self.isa.architecture}; install it "
                f"(for example: apt-get install g++-{self.isa.architecture}-linux-gnu)"
            )
        return library.resolve().parents[1]

    def compile(self, source: Path, options: Sequence[str]) -> Path:
        """An executable for the emulated processor; compiled once, then kept in the cache.

        Raises:
            BuildError: It cannot be compiled.
        """
        command = [self.compiler, "-std=c++17", "-O2", str(source), *options]
        return self._cached(source, command, source.stem)

    @cached_property
    def _counter(self) -> Path:
        """The plugin that counts instructions, compiled for this machine."""
        source = _SOURCES / "count_instructions.c"
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            raise BuildError(
                "no C compiler for qemu's plugin; install one (for example: apt-get install gcc)"
            )
        major = self.version.partition(".")[0]
        api = 2 if major.isdigit() and int(major) >= _FIRST_API_2 else 1
        command = [compiler, "-shared", "-fPIC", "-O2", f"-DQEMU_PLUGIN_API={api}", str(source)]
        return self._cached(source, command, "count_instructions.so")

    def _cached(self, source: Path, command: Sequence[str], name: str) -> Path:
        digest = hashlib.sha256("\0".join(command).encode())
        for file in sorted(path for path in source.parent.iterdir() if path.is_file()):
            digest.update(file.read_bytes())
        target = self.cache / "emulation" / digest.hexdigest()[:16] / name
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
            made = Path(folder) / name
            try:
                done = subprocess.run(
                    [*command, "-o", str(made)],
                    capture_output=True, text=True, check=False, timeout=COMPILE_TIMEOUT,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise BuildError(f"{source.name} took over {COMPILE_TIMEOUT:g} s") from error
            if done.returncode != 0:
                raise BuildError(f"{source.name} failed: {done.stderr.strip()[-_LONGEST:]}")
            atomic_write_bytes(target, made.read_bytes())
        target.chmod(0o755)
        return target

    def run(self, executable: Path, arguments: Sequence[str | Path]) -> None:
        """Run an executable of the emulated processor.

        Raises:
            MeasurementError: It failed; the message ends with what it said.
            ChildCrashError: It crashed.
            ChildTimeoutError: It took too long.
        """
        self._run([], executable, arguments)

    def count(self, executable: Path, arguments: Sequence[str | Path]) -> int:
        """Instructions that a run executes, from the dynamic linker's first to the last.

        Raises:
            As `run`, and MeasurementError: this qemu cannot count.
        """
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
            out = Path(folder) / "instructions"
            self._run(["-plugin", f"{self._counter},out={out}"], executable, arguments)
            try:
                return int(out.read_text())
            except (OSError, ValueError) as error:
                raise MeasurementError(
                    f"{self.qemu} {self.version} counted no instructions: {error}"
                ) from error

    def _run(
        self, options: Sequence[str], executable: Path, arguments: Sequence[str | Path]
    ) -> None:
        command = [self.qemu, "-cpu", self.isa.mcpu, "-L", str(self.system), *options]
        command += [str(executable), *map(str, arguments)]
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
            try:
                # A program that crashes may leave a core in its folder.
                done = subprocess.run(
                    command,
                    capture_output=True, text=True, errors="replace", check=False,
                    timeout=RUN_TIMEOUT, cwd=folder,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise ChildTimeoutError(
                    f"{executable.name} took longer than {RUN_TIMEOUT:g} s under emulation"
                ) from error
        said = done.stderr.strip()[-_LONGEST:]
        if done.returncode < 0:
            raise ChildCrashError(
                f"{executable.name} crashed under emulation: {said}", signal=-done.returncode
            )
        if done.returncode != 0:
            raise MeasurementError(
                f"{executable.name} ended with status {done.returncode} under emulation: {said}"
            )
