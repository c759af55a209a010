"""Bundles: what a user deploys. Written whole or not at all, verified before anything is loaded.

A bundle is a folder (and the same as .tar.gz):

    library.so            the compiled subnet with its packed weights
    subnet.safetensors    its weights in the on-disk layout; `supernet.load_subnet(folder)`
    subnet.json           its layers
    model.onnx            the ONNX twin (QDQ where quantised)
    input.npy output.npy  a sample and the binary's logits
    run.py                runs the bundle with numpy and the TVM runtime only
    runner.cc, *.h        run it without Python, once built
    build_runner.sh       builds them; `compilers.native` calls it
    manifest.json         everything else, and the SHA-256 of every file
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import compilers.runtime as bundle_runtime
from compilers.built import (
    INPUT_FILE,
    LIBRARY_FILE,
    ONNX_FILE,
    OUTPUT_FILE,
    Build,
    KernelRecord,
    package_version,
)
from compilers.check import compare
from compilers.errors import BundleError, CompilerError
from compilers.measurement import Measurement
from compilers.runtime import FORMAT, MANIFEST, BundleRuntimeError
from compilers.signature import Signature
from spaces.archive import Limits, pack_folder, unpack_folder
from spaces.cost import cost
from spaces.errors import ArchiveError, NetcarveError
from spaces.files import atomic_directory, atomic_write_bytes, atomic_write_text, sha256_file
from spaces.layer_spec import LayerSpec

if TYPE_CHECKING:
    from compilers.devices.base import Device

_COPIED = (LIBRARY_FILE, "subnet.safetensors", "subnet.json", INPUT_FILE)
RUNNER_SCRIPT = "build_runner.sh"
RUNNER_FILES = (RUNNER_SCRIPT, "bundle.h", "model.h", "npy.h", "runner.cc", "threads.h")
"""Sources of the native runner, as they lie in every bundle and in the folder `runner`."""

OUTPUT_TOLERANCE = 1e-4
"""Allowed difference from the bundle's own sample output, relative to its largest logit."""

_LARGEST = Limits(members=64, bytes=1 << 30)


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What the search knows about a subnet, for its bundle's manifest.

    Attributes:
        config: Gene names and values, of those that count.
        space: Name or JSON form of the search space.
        accuracy: Accuracy of the *binary* on the report split, 0 to 1.
        measured: Latency of the binary.
        predicted_ms: What the predictor had said, ms.
        predicted_std_ms: Its uncertainty, ms.
        extra: Anything else worth keeping (job, seed, data set), JSON values.
    """

    config: Mapping[str, Any]
    space: Any
    accuracy: float | None = None
    measured: Measurement | None = None
    predicted_ms: float | None = None
    predicted_std_ms: float | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify_bundle` found.

    Attributes:
        files: Number of files whose hashes match.
        difference: Largest difference of logits, relative to the largest.
        measurement: The latency here and now; None when it was not measured again.
    """

    files: int
    difference: float
    measurement: Measurement | None


def write_bundle(
    path: str | Path,
    build: Build,
    device: Device,
    info: BundleInfo,
    archive: bool = True,
) -> Path:
    """Write the bundle of `build` to the folder `path`, and `path`.tar.gz.

    Args:
        path: The folder; an existing one is replaced, and with it its archive.
        build: The compiled subnet.
        device: What it was built for, and where `info.measured` is from.
        info: What the search knows about it.
        archive: Whether to write the .tar.gz too.

    Returns:
        The folder.

    Raises:
        BundleError: The device's builds hold no library.
        MismatchError: The ONNX twin's outputs differ from the module's.
        CompilerError: The ONNX export failed.
    """
    if not device.deploys:
        raise BundleError(
            f"device {device.config.name}: the kind {device.config.kind!r} runs no compiled "
            "library, so there is nothing to deploy"
        )
    target = Path(path)
    packed_path = target.with_name(target.name + ".tar.gz")
    with atomic_directory(target) as folder:
        for name in _COPIED:
            shutil.copyfile(build.folder / name, folder / name)
        shutil.copyfile(bundle_runtime.__file__, folder / "run.py")
        for name in RUNNER_FILES:
            shutil.copyfile(Path(__file__).parent / "runner" / name, folder / name)
        np.save(folder / OUTPUT_FILE, device.run(build, np.load(build.folder / INPUT_FILE)))
        onnx_difference = device.export_onnx(build, folder / ONNX_FILE)
        manifest = _manifest(build, device, info)
        manifest["onnx_difference"] = onnx_difference
        manifest["files"] = {
            file.name: {"sha256": sha256_file(file), "bytes": file.stat().st_size}
            for file in sorted(folder.iterdir())
        }
        atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        # At no moment does an archive lie beside a folder that holds something else.
        packed_path.unlink(missing_ok=True)
    if archive:
        packed = io.BytesIO()
        pack_folder(target, packed, top=target.name)
        # No time in its header: equal bundles are equal files.
        content = gzip.compress(packed.getvalue(), mtime=0)
        atomic_write_bytes(packed_path, content)
    return target


def _manifest(build: Build, device: Device, info: BundleInfo) -> dict[str, Any]:
    total = cost(build.specs)
    return {
        "format": FORMAT,
        "library": LIBRARY_FILE,
        "sample": {"input": INPUT_FILE, "output": OUTPUT_FILE},
        "input_shape": list(build.input_shape),
        "input_dtype": build.input_dtype,
        "output_shape": list(build.output_shape),
        "output_tolerance": OUTPUT_TOLERANCE,
        "tolerance": build.tolerance,
        "difference": build.difference,
        "isa": build.isa,
        "threads": build.threads,
        "cpu_flags": list(build.cpu_flags),
        "device": device.config.model_dump(),
        "hardware": build.hardware,
        "config": dict(info.config),
        "space": info.space,
        "accuracy": info.accuracy,
        "latency": {
            "measured": info.measured.to_json() if info.measured else None,
            "hardware": device.hardware if info.measured else None,
            "predicted_ms": info.predicted_ms,
            "predicted_std_ms": info.predicted_std_ms,
        },
        "cost": {"macs": total.macs, "params": total.params, "bytes": total.bytes},
        "layers": [spec.to_json() for spec in build.specs],
        "kernels": [asdict(record) for record in build.kernels],
        "versions": {**build.versions, "onnx": package_version("onnx")},
        "extra": dict(info.extra or {}),
    }


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Path]:
    """The folder of a bundle that is a folder or a .tar.gz; the latter is unpacked meanwhile.

    Raises:
        BundleError: There is no bundle, or the archive is damaged or unsafe.
    """
    source = Path(path)
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise BundleError(f"{source}: no such bundle")
    with tempfile.TemporaryDirectory(prefix="netcarve-bundle-") as scratch:
        folder = Path(scratch)
        try:
            with gzip.open(source) as file:
                unpack_folder(file, folder, one_top=True, limits=_LARGEST)
        except (ArchiveError, OSError) as error:
            raise BundleError(f"{source}: not a bundle: {error}") from error
        yield folder


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle folder, after every file's hash was compared with it.

    Raises:
        BundleError: The manifest is missing or damaged, or a file is missing or differs.
    """
    try:
        manifest = bundle_runtime.read_manifest(folder)
        bundle_runtime.check_hashes(folder, manifest)
    except BundleRuntimeError as error:
        raise BundleError(str(error)) from error
    return manifest


def load_bundle(path: str | Path) -> Build:
    """The build inside a bundle folder, after its hashes were checked.

    Raises:
        BundleError: The bundle is corrupt, or was not written by this version.
    """
    manifest = checked_manifest(Path(path))
    try:
        return Build(
            folder=Path(path),
            specs=tuple(map(LayerSpec.from_json, manifest["layers"])),
            isa=manifest["isa"],
            threads=manifest["threads"],
            cpu_flags=tuple(manifest["cpu_flags"]),
            input_shape=tuple(manifest["input_shape"]),
            input_dtype=manifest["input_dtype"],
            output_shape=tuple(manifest["output_shape"]),
            kernels=tuple(KernelRecord(**record) for record in manifest["kernels"]),
            tolerance=float(manifest["tolerance"]),
            difference=float(manifest["difference"]),
            seconds=0.0,
            hardware=str(manifest["hardware"]),
            versions=dict(manifest["versions"]),
        )
    except KeyError as error:
        raise BundleError(f"{Path(path) / MANIFEST}: corrupt: {error} is missing") from error
    except (NetcarveError, AttributeError, TypeError, ValueError) as error:
        raise BundleError(f"{Path(path) / MANIFEST}: corrupt: {error}") from error


def verify_bundle(
    path: str | Path,
    device: Device | None = None,
    measure: bool = True,
    measuring: AbstractContextManager[object] | None = None,
    signature: Signature | None = None,
) -> Verification:
    """Check a bundle: its signature and hashes, then the processor, outputs, and the latency here.

    Args:
        path: Folder or .tar.gz.
        device: Where to run it; this CPU with the bundle's ISA when None.
        measure: Whether to measure again.
        measuring: Entered while it measures, for example a lock that keeps other work away.
        signature: Must be a signature of the manifest, which is checked before it is read.

    Raises:
        BundleError: The signature is not that of the key; a file is missing, corrupt, or not for
            this processor; or outputs differ.
    """
    from compilers.devices import DeviceConfig, LocalCpu

    with opened(path) as folder, contextlib.ExitStack() as stack:
        if signature is not None:
            signature.check(folder / MANIFEST)
        build = load_bundle(folder)
        manifest = bundle_runtime.read_manifest(folder)
        try:
            bundle_runtime.check_cpu(manifest)
            sample = folder / manifest["sample"]["input"]
            x = bundle_runtime.read_input(sample, build.input_shape, build.input_dtype)
            expected = bundle_runtime.load_array(folder / manifest["sample"]["output"])
            if device is None:
                config = DeviceConfig(name="this-cpu", isa=build.isa, threads=build.threads)
                device = stack.enter_context(LocalCpu(config))
            difference = compare(device.run(build, x), expected, OUTPUT_TOLERANCE)
            measured = None
            if measure:
                with measuring or contextlib.nullcontext():
                    measured = device.time([build])[0]
        except (BundleRuntimeError, CompilerError) as error:
            raise BundleError(f"{path}: {error}") from error
    return Verification(len(manifest["files"]), difference, measured)
