"""Which instruction sets kernels run on here: this machine's, and emulated ones."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from compilers.targets import ISAS, host_isas
from compilers.toolchain import is_foreign, tool_name


def emulated(isa: str) -> bool:
    """Whether what emulating an instruction set takes is installed."""
    architecture = ISAS[isa].architecture
    needed = (f"qemu-{architecture}", tool_name(architecture, "g++"))
    return is_foreign(architecture) and all(map(shutil.which, needed))


def executed() -> list[Any]:
    missing = pytest.mark.skip(reason="needs qemu-user and the cross compiler")
    foreign = [name for name, isa in ISAS.items() if is_foreign(isa.architecture)]
    return [
        *host_isas(),
        *(pytest.param(isa, marks=() if emulated(isa) else missing) for isa in foreign),
    ]


@pytest.fixture(params=executed())
def executed_isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set on which kernels can be run here."""
    return str(request.param)
