"""Foreign processors, emulated by qemu-user: results and instruction counts, never times."""

from __future__ import annotations

from compilers.emulation.calls import Call, call_kernels
from compilers.emulation.qemu import Emulator

__all__ = ["Call", "Emulator", "call_kernels"]
