"""Calls of compiled kernels under emulation, many in one run, without TVM's runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compilers.emulation.qemu import Emulator
from compilers.errors import BuildError

_ALIGNMENT = 64
# DLPack's codes of element types.
_CODES = {"i": 0, "u": 1, "f": 2}


class Call(NamedTuple):
    """One call of a kernel.

    Attributes:
        symbol: Its function.
        arguments: Tensors in the kernel's order, the output last. Calls that are given the same
            array share its memory, so that one may read what an earlier one wrote.
    """

    symbol: str
    arguments: tuple[NDArray[Any], ...]


def call_kernels(emulator: Emulator, library: Path, calls: Sequence[Call]) -> None:
    """Run calls one after the other; then every argument holds what its memory held at the end.

    A kernel that reads or writes behind a tensor (beyond its last 64 bytes) crashes.

    Args:
        emulator: What executes them.
        library: A shared library with all of their kernels.
        calls: In order of execution.

    Raises:
        MeasurementError: A kernel is missing, refuses its arguments, or writes beside them.
        ChildCrashError: A kernel crashed; the message ends with its symbol.
        ChildTimeoutError: It took too long.
        BuildError: The caller cannot be compiled.
    """
    arrays = {id(array): array for call in calls for array in call.arguments}
    offsets: dict[int, int] = {}
    size = 0
    for key, array in arrays.items():
        offsets[key] = size
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    data = np.zeros(size, np.uint8)
    for key, array in arrays.items():
        _part(data, offsets[key], array)[...] = array
    lines = []
    for call in calls:
        lines.append(f"{call.symbol} {len(call.arguments)}")
        lines += [_described(array, offsets[id(array)]) for array in call.arguments]
    with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
        description, before, after = (Path(folder) / name for name in ("calls", "data", "out"))
        description.write_text("\n".join(lines))
        data.tofile(before)
        emulator.run(_caller(emulator), [library, description, before, after])
        data = np.fromfile(after, np.uint8)
    for key, array in arrays.items():
        array[...] = _part(data, offsets[key], array)


def _part(data: NDArray[np.uint8], offset: int, array: NDArray[Any]) -> NDArray[Any]:
    return data[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)


def _described(array: NDArray[Any], offset: int) -> str:
    code, bits = _CODES[array.dtype.kind], 8 * array.dtype.itemsize
    return " ".join(map(str, (offset, code, bits, array.ndim, *array.shape)))


def _caller(emulator: Emulator) -> Path:
    package = find_spec("tvm_ffi")
    if package is None or package.origin is None:
        raise BuildError("the package tvm_ffi is not installed; it holds headers of TVM")
    include = Path(package.origin).parent / "include"
    source = Path(__file__).with_name("call_kernels.cc")
    return emulator.compile(source, ["-I", str(include), "-rdynamic", "-ldl"])
