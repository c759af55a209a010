"""Executes cases between pages without access, and compares what comes out.

Every case runs with arguments that begin right behind, then with arguments that end right before a
page without access, so that a read or write beside them kills the process; bytes around the output
must keep their canary. Kernels for another architecture run under emulation, where arguments end
before such a page.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from kernel_case import Case

from compilers.build import link
from compilers.emulation import Call, Emulator, call_kernels
from compilers.kernel_library import KernelLibrary, compile_kernel
from compilers.targets import Isa
from compilers.toolchain import is_foreign

CANARY = 0xA5

_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """An array in a mapping between two pages without access.

    Args:
        array: what it holds.
        at_end: it ends (to within an alignment of 64 bytes) where the second one begins;
            otherwise it begins where the first one ends.
    """

    def __init__(self, array: np.ndarray, at_end: bool) -> None:
        page = mmap.PAGESIZE
        size = max(array.nbytes, 1)
        used = -(-size // 64) * 64
        pages = -(-(used + 64) // page)
        self.map = mmap.mmap(-1, (pages + 2) * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for place in (base, base + (pages + 1) * page):
            if _libc.mprotect(ctypes.c_void_p(place), page, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = np.frombuffer(self.map, np.uint8, pages * page, page)
        self.bytes[:] = CANARY
        self.first = pages * page - used if at_end else 0
        self.size = array.nbytes
        self.array = self.bytes[self.first : self.first + size].view(array.dtype)
        self.array = self.array.reshape(array.shape)
        self.array[...] = array

    def intact(self) -> bool:
        """Whether no byte beside the array changed."""
        before, after = self.bytes[: self.first], self.bytes[self.first + self.size :]
        return bool((before == CANARY).all() and (after == CANARY).all())


def run(case: Case, isa: Isa) -> tuple[np.ndarray, list[str]]:
    """The output, and what is wrong with the arguments afterwards."""
    import tvm_ffi

    kernel = case.kernel
    function = compile_kernel(kernel, isa, case.tile)[kernel.symbol(isa, case.tile)]
    arrays = [case.x, *([] if case.residual is None else [case.residual])]
    arrays += [*case.inputs, *kernel.constants(isa, case.params)]
    wrong: list[str] = []
    for at_end in (False, True):
        output = Guarded(np.full(kernel.output_shape, 77, kernel.output_dtype), at_end)
        # An array that is passed twice is one tensor.
        guarded_arrays = {id(array): Guarded(array, at_end) for array in arrays}
        inputs = [guarded_arrays[id(array)] for array in arrays]
        function(*(tvm_ffi.from_dlpack(a.array) for a in (*inputs, output)))
        if not output.intact():
            wrong.append("wrote beside its output")
        for array, guarded in zip(arrays, inputs, strict=True):
            if not (np.array_equal(array, guarded.array) and guarded.intact()):
                wrong.append("wrote to an input")
    return output.array, wrong


def emulate(chosen: list[Case], isa: Isa) -> Iterator[tuple[np.ndarray, list[str]]]:
    """As `run`, for all cases in one program."""
    calls = []
    with tempfile.TemporaryDirectory() as folder:
        kernels = KernelLibrary(Path(folder) / "kernels")
        objects = {str(kernels.object_file(case.kernel, isa, case.tile)) for case in chosen}
        library = Path(folder) / "library.so"
        link(str(library), sorted(objects), isa)
        for case in chosen:
            arrays = [case.x, *([] if case.residual is None else [case.residual])]
            arrays += [*case.inputs, *case.kernel.constants(isa, case.params)]
            arrays = [np.array(array) for array in arrays]
            arrays.append(np.full(case.kernel.output_shape, 77, case.kernel.output_dtype))
            calls.append(Call(case.kernel.symbol(isa, case.tile), tuple(arrays)))
        before = [[np.array(array) for array in call.arguments[:-1]] for call in calls]
        call_kernels(Emulator(isa, Path(folder)), library, calls)
    for call, inputs in zip(calls, before, strict=True):
        kept = map(np.array_equal, call.arguments[:-1], inputs)
        yield call.arguments[-1], [] if all(kept) else ["wrote to an input"]


def check(isa: Isa, chosen: Iterable[Case]) -> dict[str, object]:
    failures: list[str] = []
    elements = differing = count = 0
    chosen = [
        replace(case, tile=tile)
        for case in chosen
        for tile in (None, *(case.kernel.candidates(isa)[1:] if case.every_tile else ()))
    ]
    outputs = (run(case, isa) for case in chosen)
    if is_foreign(isa.architecture):
        outputs = emulate(chosen, isa)
    for case, (found, wrong) in zip(chosen, outputs, strict=True):
        count += 1
        difference = np.abs(found.astype(np.float64) - case.expected)
        if case.exact and difference.max() != 0:
            wrong.append(f"accumulators differ by {difference.max()}")
        elif found.dtype == np.uint8:
            elements += found.size
            differing += int((difference > 0).sum())
            if difference.max() > 1:
                wrong.append(f"differs by {difference.max()} steps")
        elif (worst := difference.max() / max(1.0, np.abs(case.expected).max())) > 2e-6:
            wrong.append(f"relative error {worst}")
        failures += [f"{case.kernel} {case.tile or ''}: {text}" for text in wrong]
    return {"cases": count, "failures": failures, "elements": elements, "differing": differing}


def compare_threads(case: Case, isa: Isa) -> list[str]:
    """What is wrong with the kernel on two threads."""
    two = isa.with_threads(2)
    serial, wrong = run(case, isa)
    parallel, more = run(case, two)
    if not np.array_equal(serial, parallel):
        more.append("two threads give other bits")
    if "T.parallel(2)" not in case.kernel.prim_func(two).script():
        more.append("is not divided")
    return wrong + more
