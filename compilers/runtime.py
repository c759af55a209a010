"""Run a bundle with nothing but numpy and the TVM runtime.

This file imports neither torch nor anything of this package: a copy of it lies in every bundle as
`run.py`, where it runs the bundle on a machine that has numpy, apache-tvm and apache-tvm-ffi:

    python run.py                                    check hashes, then the sample's output
    python run.py --input x.npy --output logits.npy  run inputs [n, C, H, W] float32, [n, T] int64
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANIFEST = "manifest.json"
FORMAT = 2
KNOWN_ISAS = ("avx512_vnni", "avx512", "avx2", "neon_dot")
"""Instruction sets of libraries; the names in `compilers.targets.ISAS`."""

# TVM's affinity mode that binds each of its threads to the processor of that index.
_ONE_CORE_PER_THREAD = -2
INPUT_DTYPES = ("float32", "int64")
"""Element types of inputs; int64 for tokens."""

_NOISE = ("Warning: Scope Saving", "Warning: Scope Loaded")


class BundleRuntimeError(Exception):
    """A bundle cannot be run here: the message says why and names the file or the value."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle folder; what running it needs is there and of the right type.

    Raises:
        BundleRuntimeError: It is missing, not JSON, of another format, or a field is missing or
            wrong; the message names it.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise BundleRuntimeError(f"{path}: not a bundle: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleRuntimeError(f"{path}: corrupt: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleRuntimeError(f"{path}: not a bundle manifest of format {FORMAT}")
    for field, (check, expected) in _FIELDS.items():
        if field not in manifest:
            raise BundleRuntimeError(f"{path}: corrupt: {field} is missing")
        if not check(manifest[field]):
            raise BundleRuntimeError(
                f"{path}: corrupt: {field} is {manifest[field]!r:.100}; expected {expected}"
            )
    for name in (manifest["library"], *manifest["sample"].values()):
        if name not in manifest["files"]:
            raise BundleRuntimeError(f"{path}: corrupt: {name!r} has no recorded hash")
    return manifest


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_shape(value: object) -> bool:
    whole = isinstance(value, list) and all(type(size) is int and size > 0 for size in value)
    return whole and 2 <= len(value) <= 4 and value[0] == 1  # type: ignore[arg-type,index]


def _is_sample(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"input", "output"}
        and _is_names(list(value.values()))
    )


# Field of the manifest -> (whether a value will do, what is expected).
_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "files": (lambda value: isinstance(value, dict), "a table of files"),
    "library": (lambda value: isinstance(value, str), "a file name"),
    "sample": (_is_sample, "the file names of an input and an output"),
    "input_shape": (_is_shape, "[1, C, H, W]"),
    "input_dtype": (lambda value: value in INPUT_DTYPES, f"one of {', '.join(INPUT_DTYPES)}"),
    "output_shape": (_is_shape, "[1, C] or [1, T, C]"),
    "output_tolerance": (
        lambda value: type(value) in (int, float) and 0 <= value < 1,  # type: ignore[operator]
        "a number from 0 to 1",
    ),
    "isa": (lambda value: value in KNOWN_ISAS, f"one of {', '.join(KNOWN_ISAS)}"),
    "threads": (
        lambda value: type(value) is int and value >= 1,
        "a number of threads",
    ),
    "cpu_flags": (_is_names, "a list of names"),
}


def check_hashes(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file with the manifest, before anything of the bundle is loaded.

    Raises:
        BundleRuntimeError: A file is missing or differs from its recorded SHA-256, or the manifest
            names a path outside the folder; the message names it.
    """
    for name, entry in sorted(manifest["files"].items()):
        if name in ("", ".", "..", MANIFEST) or {"/", "\\", "\0"} & set(name):
            raise BundleRuntimeError(f"{folder / MANIFEST}: corrupt: file name {name!r}")
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleRuntimeError(f"{path}: missing: {error.strerror}") from error
        expected = entry.get("sha256") if isinstance(entry, dict) else None
        if found != expected:
            raise BundleRuntimeError(f"{path}: corrupt: its SHA-256 is {found}, not {expected}")


def check_cpu(manifest: dict[str, Any]) -> None:
    """Make sure that this processor has the instructions of the library.

    Raises:
        BundleRuntimeError: It lacks some; the message lists them.
    """
    needed = set(manifest["cpu_flags"])
    have: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        # x86, then ARM.
        if line.startswith(("flags", "Features")):
            have = set(line.partition(":")[2].split())
            break
    if missing := needed - have:
        raise BundleRuntimeError(
            f"this CPU lacks {', '.join(sorted(missing))}; the bundle was compiled for "
            f"{manifest['isa']}"
        )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Drop the line per constant that TVM writes to stderr when it loads a library."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        os.dup2(capture.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            capture.seek(0)
            for line in capture.read().decode(errors="replace").splitlines():
                if not any(noise in line for noise in _NOISE):
                    print(line, file=sys.stderr)


def load_library(library: Path) -> Any:
    """The module in a shared library that TVM made.

    The dynamic linker knows libraries by path: a private copy is never confused with another
    library that was loaded from the same place before.
    """
    import tvm

    with tempfile.TemporaryDirectory(prefix="netcarve-") as folder:
        copy = Path(folder) / "library.so"
        shutil.copyfile(library, copy)
        return tvm.runtime.load_module(str(copy))


class Model:
    """A compiled subnet, loaded.

    Args:
        library: The shared library of a build or bundle. Loading executes its code: check its
            hash first, and load only what comes from a source you trust.
        input_dtype: Of its input.
        output_shape: What the result of one input is shaped to, [1, ...]; None leaves the
            [rows, columns] that kernels store.

    Raises:
        BundleRuntimeError: The library cannot be loaded, or is no compiled subnet.
    """

    def __init__(
        self,
        library: Path,
        input_dtype: str = "float32",
        output_shape: Sequence[int] | None = None,
    ) -> None:
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self._tensor = tvm.runtime.tensor
        self.input_dtype = input_dtype
        self.output_shape = output_shape
        with _without_noise():
            try:
                self.module = load_library(library)
                self.machine = VirtualMachine(self.module, tvm.cpu())
                self.main = self.machine["main"]
            except Exception as error:
                # TVM raises classes of its own, and built-in ones for which it lacks a class.
                raise BundleRuntimeError(
                    f"{library}: no library of a compiled subnet: {_first_line(error)}"
                ) from error

    def tensor(self, x: NDArray[Any]) -> Any:
        """One input in the runtime's memory, to call `main` with repeatedly.

        Raises:
            BundleRuntimeError: It is of another kind than the library's, such as float32 for
                tokens.
        """
        if not np.can_cast(x.dtype, self.input_dtype, "same_kind"):
            raise BundleRuntimeError(f"inputs are {x.dtype}; the library takes {self.input_dtype}")
        return self._tensor(np.ascontiguousarray(x, self.input_dtype))

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Results [n, ...] float32, as logits [n, classes], of inputs [n, ...]."""
        if len(x) == 0:
            raise BundleRuntimeError(f"no inputs: shape {x.shape}")
        tensors = (self.tensor(x[i : i + 1]) for i in range(len(x)))
        try:
            rows = [self.main(tensor).numpy() for tensor in tensors]
        except BundleRuntimeError:
            raise
        except Exception as error:
            raise BundleRuntimeError(
                f"the library refuses inputs of shape {x.shape}: {_first_line(error)}"
            ) from error
        if self.output_shape is not None:
            rows = [row.reshape(self.output_shape) for row in rows]
        return np.concatenate(rows)


def use_threads(threads: int) -> None:
    """Let TVM divide work over so many threads, of which this one is the first.

    Where this process may use exactly as many processors (see `taskset`), each thread is bound to
    one of them: otherwise they may share one, which costs all that they gain. Has no effect on
    the number once TVM has run a kernel in this thread.
    """
    # TVM would bind its threads to processors of its own choice.
    os.environ.update(TVM_NUM_THREADS=str(threads), TVM_BIND_THREADS="0")
    cpus = sorted(os.sched_getaffinity(0))
    if threads > 1 and len(cpus) == threads:
        os.environ["TVM_BIND_THREADS"] = "1"
        import tvm

        configure = tvm.get_global_func("runtime.config_threadpool")
        configure(_ONE_CORE_PER_THREAD, threads, list(map(str, cpus)))
        # TVM lets the calling thread move.
        os.sched_setaffinity(0, cpus[:1])


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def load_bundle(folder: Path) -> tuple[Model, dict[str, Any]]:
    """Check a bundle's hashes and its processor, then load it for as many threads as it states.

    Raises:
        BundleRuntimeError: see `read_manifest`, `check_hashes`, `check_cpu`.
    """
    manifest = read_manifest(folder)
    check_hashes(folder, manifest)
    check_cpu(manifest)
    use_threads(manifest["threads"])
    library = folder / manifest["library"]
    return Model(library, manifest["input_dtype"], manifest["output_shape"]), manifest


def read_input(path: Path, shape: Sequence[int], dtype: str = "float32") -> NDArray[Any]:
    """Inputs from a .npy file: [n, ...], or one input without its first axis.

    Args:
        path: The file.
        shape: Shape of one input with batch 1: [1, C, H, W].
        dtype: Of the inputs; integers become float32, but nothing becomes int64.

    Raises:
        BundleRuntimeError: The file cannot be read, or its shape or dtype does not fit.
    """
    x = load_array(path)
    shape = list(shape)
    if list(x.shape) == shape[1:]:
        x = x[None]
    kinds = "fiu" if dtype == "float32" else "iu"
    if list(x.shape[1:]) != shape[1:] or x.dtype.kind not in kinds or len(x) == 0:
        expected = ", ".join(map(str, ["n", *shape[1:]]))
        raise BundleRuntimeError(f"{path}: {x.dtype} {x.shape}; expected {dtype} [{expected}]")
    return x.astype(dtype)


def load_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        BundleRuntimeError: The file cannot be read, or holds Python objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleRuntimeError(f"{path}: not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise BundleRuntimeError(f"{path}: not a readable .npy file: an archive of several")
    return array


def compare(found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> float:
    """The largest difference of two arrays of logits, relative to the largest expected logit.

    Raises:
        BundleRuntimeError: It exceeds `tolerance`, or the shapes differ, or a value is not finite.
    """
    if found.shape != expected.shape:
        raise BundleRuntimeError(f"output has shape {found.shape}, expected {expected.shape}")
    scale = max(float(np.abs(expected).max()), 1e-6)
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= tolerance:
        raise BundleRuntimeError(
            f"outputs differ by {difference:.2e} of the largest logit; allowed: {tolerance:.0e}"
        )
    return difference


def main(arguments: list[str] | None = None) -> int:
    """The command line of `run.py`; returns the exit code, 2 when the bundle cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--input", type=Path, help=".npy, float32 [n, C, H, W] or int64 [n, T]")
    parser.add_argument("--output", type=Path, help="where to write the logits, .npy")
    options = parser.parse_args(arguments)
    # Before TVM is imported: map its runtime only.
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    try:
        model, manifest = load_bundle(options.bundle)
        source = options.input or options.bundle / manifest["sample"]["input"]
        logits = model(read_input(source, manifest["input_shape"], manifest["input_dtype"]))
        if options.input is None:
            expected = load_array(options.bundle / manifest["sample"]["output"])
            difference = compare(logits, expected, manifest["output_tolerance"])
            print(f"hashes match; outputs match (largest difference {difference:.1e})")
        if options.output is not None:
            np.save(options.output, logits)
        elif options.input is not None:
            print(json.dumps({"logits": logits.tolist(), "classes": logits.argmax(-1).tolist()}))
    except (BundleRuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
