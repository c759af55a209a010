"""An emulated ARM processor, where what that takes is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compilers.emulation import Emulator
from compilers.targets import find_isa
from compilers.toolchain import is_foreign, tool_name


@pytest.fixture(scope="session")
def emulator(cache: Path) -> Emulator:
    isa = find_isa("neon_dot")
    if not is_foreign(isa.architecture):
        pytest.skip("this machine is of that architecture")
    for tool in ("qemu-aarch64", tool_name(isa.architecture, "g++")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return Emulator(isa, cache)
