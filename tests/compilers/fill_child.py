"""Run in a child process: fill a library with some kernels of a device; prints the report.

    python fill_child.py FOLDER BATCH [BYTES]

BYTES is the largest file that may be written: the disk is full.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from compilers import kernel_fill
from compilers.devices import DeviceConfig, LocalCpu
from compilers.errors import KernelLibraryError
from compilers.kernel_fill import LibraryFill
from compilers.kernel_library import KernelLibrary
from compilers.kernels import Gemm
from compilers.targets import resolve_isa
from spaces.capabilities import DeviceCapabilities

KERNELS = [Gemm(m, 8, 40) for m in range(3, 8)]


def capabilities(isa: str) -> DeviceCapabilities:
    return DeviceCapabilities(isa, 1, 1, frozenset(), frozenset(), "test")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    kernel_fill.BATCH = int(sys.argv[2])
    if len(sys.argv) > 3:
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    name = resolve_isa("native").name
    with LocalCpu(DeviceConfig(name="d", isa=name), folder) as device:
        library = KernelLibrary(folder)
        fill = LibraryFill(library, device, capabilities(name), nullcontext, nullcontext, 1)
        try:
            print(json.dumps(asdict(fill.run(KERNELS))))
        except KernelLibraryError as error:
            print(json.dumps({"error": str(error)}))
