"""A folder of compiled kernels: each is compiled once, then shared by layers, subnets and runs."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm.runtime import Module
    from tvm.tirx import PrimFunc

    from compilers.kernels.base import Kernel
    from compilers.targets import Isa

_HERE = Path(__file__).parent
_SOURCES = ("kernel_library.py", "targets.py", "intrinsics.py", "kernels/*.py")


_TEMPORARY = ".compile-"
_ABANDONED_SECONDS = 3600.0


@cache
def generator_key() -> str:
    """16 hex digits that change with whatever decides the code: templates, options, TVM."""
    digest = hashlib.sha256(version("apache-tvm").encode())
    for path in sorted(path for pattern in _SOURCES for path in _HERE.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class KernelLibrary:
    """Object files under `folder / isa / generator key / symbol.o`.

    Any number of processes may use one folder at the same time. An object file appears complete
    or not at all; two processes that compile the same kernel write the same bytes.
    """

    def __init__(self, folder: Path, on_compile: Callable[[Kernel], None] | None = None) -> None:
        """Open a library; the folder need not exist.

        Args:
            folder: where object files are kept.
            on_compile: called before a kernel is compiled.
        """
        self.folder = Path(folder)
        self._on_compile = on_compile

    def path(self, kernel: Kernel, isa: Isa) -> Path:
        """Where the object file of a kernel is, or will be."""
        return self.folder / isa.name / generator_key() / f"{kernel.symbol(isa)}.o"

    def object_file(self, kernel: Kernel, isa: Isa) -> Path:
        """The object file that defines `__tvm_ffi_<symbol>`; compiled now if it is not there.

        Compiles in this process: call it in a disposable child.

        Raises:
            KernelError: no template covers the kernel on this instruction set.
        """
        path = self.path(kernel, isa)
        if path.exists():
            return path
        if self._on_compile is not None:
            self._on_compile(kernel)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_TEMPORARY) as temporary:
            built = Path(temporary) / path.name
            compile_kernel(kernel, isa).write_to_file(str(built), "o")
            built.replace(path)
        return path


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes left behind that were killed while they compiled."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            abandoned = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
        except OSError:
            continue
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def compile_kernel(kernel: Kernel, isa: Isa) -> Module:
    """A TVM module with one function, `kernel.symbol(isa)`.

    Raises:
        KernelError: no template covers the kernel on this instruction set.
    """
    return compile_function(kernel.symbol(isa), kernel.prim_func(isa), isa)


def compile_function(symbol: str, function: PrimFunc, isa: Isa) -> Module:
    """A TVM module with one function, whose global symbol is `symbol`."""
    import tvm

    module = tvm.IRModule({symbol: function})
    # Storage rewriting would merge nothing here, and it drops the annotation that keeps
    # accumulators on the stack, where LLVM turns them into registers.
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        return tvm.compile(module, target=isa.tvm_target()).mod
