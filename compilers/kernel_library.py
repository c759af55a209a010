"""The kernel library: compiled kernels, the register tiles chosen for them, and their latencies.

Each kernel is compiled once, then shared by layers, subnets, spaces and jobs. A choice belongs to
(kernel, instruction set), and so to every device of that instruction set; latencies belong to one
device. Choices outlive a change of the templates: one that is not among the candidates any more is
ignored. Latencies do not: they are those of one version of the templates.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compilers.errors import KernelError, KernelRecordError
from compilers.record_file import append_lines, read_lines, unwritable
from spaces.files import remove_abandoned

# The templates import TVM, which a process that only asks for `generator_key` does not need.
if TYPE_CHECKING:
    from tvm.runtime import Module
    from tvm.tirx import PrimFunc

    from compilers.kernel_records import ChoiceKey, KernelChoice, KernelTiming
    from compilers.kernels.base import Kernel
    from compilers.kernels.tiling import Tile
    from compilers.targets import Isa

_log = logging.getLogger(__name__)
# Choices by (file, time, size): a process builds many subnets with one library.
_LOADED: dict[tuple[str, int, int], Mapping[ChoiceKey, KernelChoice]] = {}
Record = TypeVar("Record", "KernelChoice", "KernelTiming")

_HERE = Path(__file__).parent
_SOURCES = ("kernel_library.py", "targets.py", "intrinsics.py", "kernels/*.py")


_TEMPORARY = ".compile-"
_ANY_TEMPORARY = re.compile(rf"{re.escape(_TEMPORARY)}.*")
# More than any object file.
_ROOM = 1 << 20


@cache
def generator_key() -> str:
    """16 hex digits that change with whatever decides the code: templates, options, TVM."""
    digest = hashlib.sha256(version("apache-tvm").encode())
    for path in sorted(path for pattern in _SOURCES for path in _HERE.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class KernelLibrary:
    """Everything below one folder:

    - `ISA / generator key / SYMBOL.o`: object files. One appears complete or not at all; two
      processes that compile the same kernel write the same bytes.
    - `choices.jsonl`: a `KernelChoice` a line; the last one of a kernel counts.
    - `timings / DEVICE.jsonl`: a `KernelTiming` a line, one file for each device.

    Any number of processes may use one folder at the same time.
    """

    def __init__(
        self,
        folder: Path,
        on_compile: Callable[[Kernel], None] | None = None,
        on_damage: Callable[[str], None] | None = None,
    ) -> None:
        """Open a library; the folder need not exist.

        Args:
            folder: where it is.
            on_compile: called before a kernel is compiled.
            on_damage: told about every line that is left out because it cannot be read; by
                default a warning is logged.
        """
        self.folder = Path(folder)
        self._on_compile = on_compile
        self._on_damage = on_damage or _log.warning
        self._choices: Mapping[ChoiceKey, KernelChoice] | None = None

    # -- object files ---------------------------------------------------------------------------

    def path(self, kernel: Kernel, isa: Isa, tile: Tile | None = None) -> Path:
        """Where the object file of a kernel is, or will be."""
        return self.folder / isa.name / generator_key() / f"{kernel.symbol(isa, tile)}.o"

    def object_file(self, kernel: Kernel, isa: Isa, tile: Tile | None = None) -> Path:
        """The object file that defines `__tvm_ffi_<symbol>`; compiled now if it is not there.

        Compiles in this process: call it in a disposable child.

        Args:
            kernel: what to compile.
            isa: instruction set.
            tile: one of its candidates; the template's rule when None.

        Raises:
            KernelError: no template covers the kernel on this instruction set.
            KernelLibraryError: the file cannot be written.
        """
        path = self.path(kernel, isa, tile)
        if path.exists():
            return path
        if self._on_compile is not None:
            self._on_compile(kernel)
        module = compile_kernel(kernel, isa, tile)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path.parent, _ANY_TEMPORARY)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=_TEMPORARY) as temporary:
                built = Path(temporary) / path.name
                module.write_to_file(str(built), "o")
                built.replace(path)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return path

    def check_writable(self) -> None:
        """Make sure that an object file would find room.

        Raises:
            KernelLibraryError: It would not.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(_ROOM))
                file.flush()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    # -- choices --------------------------------------------------------------------------------

    @property
    def choices_file(self) -> Path:
        """Where choices are."""
        return self.folder / "choices.jsonl"

    def tile(self, kernel: Kernel, isa: Isa) -> Tile | None:
        """The register tile to compile a kernel with; None is the template's rule."""
        from compilers.kernel_records import choice_key

        found = self.choices().get(choice_key(kernel, isa))
        if found is None or found.tile is None:
            return None
        rule, *others = kernel.candidates(isa) or (None,)
        return found.tile.tile if found.tile.tile in others and found.tile.tile != rule else None

    def choices(self) -> Mapping[ChoiceKey, KernelChoice]:
        """Every choice that was stored when this library was first asked, or last reloaded.

        Raises:
            KernelLibraryError: The file cannot be read.
        """
        if self._choices is None:
            self.reload()
        assert self._choices is not None
        return self._choices

    def reload(self) -> None:
        """See the choices that were stored since. Never happens in the middle of a build.

        Raises:
            KernelLibraryError: The file cannot be read.
        """
        from compilers.kernel_records import KernelChoice

        try:
            status = self.choices_file.stat()
        except OSError:
            self._choices = {}
            return
        stamp = (str(self.choices_file), status.st_mtime_ns, status.st_size)
        if stamp not in _LOADED:
            records = self._records(self.choices_file, KernelChoice)
            _LOADED.clear()
            _LOADED[stamp] = {record.key: record for record in records}
        self._choices = _LOADED[stamp]

    def store_choices(self, choices: Iterable[KernelChoice]) -> None:
        """Add choices, all or none; they replace earlier ones of the same kernels.

        Raises:
            KernelLibraryError: They cannot be written.
        """
        append_lines(self.choices_file, (choice.line() for choice in choices))
        self._choices = None

    # -- latencies ------------------------------------------------------------------------------

    def timings_file(self, device: Mapping[str, Any]) -> Path:
        """Where the latencies of a device are.

        Args:
            device: Its settings and hardware, JSON values.
        """
        text = json.dumps(device, sort_keys=True)
        return self.folder / "timings" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"

    def timings(self, device: Mapping[str, Any], isa: Isa) -> dict[Kernel, KernelTiming]:
        """Kernel -> its latency on a device, as these templates compile it now.

        Raises:
            KernelLibraryError: The file cannot be read.
        """
        from compilers.kernel_records import KernelTiming

        found: dict[Kernel, KernelTiming] = {}
        for record in self._records(self.timings_file(device), KernelTiming):
            current = record.generator == generator_key() and record.threads == isa.threads
            tile = record.tile.tile if record.tile is not None else None
            if current and tile == self.tile(record.kernel, isa):
                found[record.kernel] = record
        return found

    def store_timings(self, device: Mapping[str, Any], timings: Iterable[KernelTiming]) -> None:
        """Add latencies of a device, all or none.

        Raises:
            KernelLibraryError: They cannot be written.
        """
        append_lines(self.timings_file(device), (timing.line() for timing in timings))

    def _records(self, path: Path, kind: type[Record]) -> list[Record]:
        lines, rest = read_lines(path)
        records = []
        for number, line in lines:
            try:
                records.append(kind.parse(line))
            except KernelRecordError as error:
                self._on_damage(f"{path}, line {number} is left out: {error}")
        if rest:
            self._on_damage(f"{path}: the last line was never finished and is left out")
        return records


def compile_kernel(kernel: Kernel, isa: Isa, tile: Tile | None = None) -> Module:
    """A TVM module with one function, `kernel.symbol(isa, tile)`.

    Raises:
        KernelError: no template covers the kernel on this instruction set.
    """
    return compile_function(kernel.symbol(isa, tile), _function(kernel, isa, tile), isa)


def compile_function(symbol: str, function: PrimFunc, isa: Isa) -> Module:
    """A TVM module with one function, whose global symbol is `symbol`."""
    import tvm

    module = tvm.IRModule({symbol: function})
    # Storage rewriting would merge nothing here, and it drops the annotation that keeps
    # accumulators on the stack, where LLVM turns them into registers.
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        return tvm.compile(module, target=isa.tvm_target()).mod


def _function(kernel: Kernel, isa: Isa, tile: Tile | None) -> PrimFunc:
    from compilers.kernels.base import TiledKernel

    if tile is None:
        return kernel.prim_func(isa)
    if not isinstance(kernel, TiledKernel):
        raise KernelError(f"template {kernel.kind!r} has no register tile to choose")
    return kernel.prim_func(isa, tile)
