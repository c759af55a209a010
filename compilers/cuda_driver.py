"""NVIDIA GPUs, as their driver names them. Its library is asked; no CUDA toolkit is needed."""

from __future__ import annotations

import contextlib
import ctypes
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from compilers.errors import DeviceError

DRIVER = "libcuda.so.1"
RUNTIME = "libcudart.so.13"
"""CUDA's runtime library of the version that TVM's wheel is linked with."""

_NAME_BYTES = 256
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
_CAPABILITY = (75, 76)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: What NVIDIA calls it.
        capability: Its compute capability, (major, minor).
    """

    name: str
    capability: tuple[int, int]

    @property
    def isa(self) -> str:
        """Its instruction set, as compilers call it: `sm_90`."""
        major, minor = self.capability
        return f"sm_{major}{minor}"


def find_gpus(library: str = DRIVER) -> tuple[Gpu, ...]:
    """The GPUs that this process may use, at least one, in the order in which CUDA counts them.

    Args:
        library: The driver's library.

    Raises:
        DeviceError: There is no driver, or it finds no GPU.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise DeviceError(f"no NVIDIA driver is installed here: {error}") from error
    count = ctypes.c_int()
    _call(driver, "cuInit", 0)
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise DeviceError("the NVIDIA driver finds no GPU that this process may use")
    return tuple(_describe(driver, index) for index in range(count.value))


def load_runtime() -> None:
    """Load CUDA's runtime library, which TVM looks for by its name alone.

    Where the system's linker does not find it, that of the wheel `nvidia-cuda-runtime` is taken.
    Without either TVM has no CUDA devices.
    """
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia"
    for path in (RUNTIME, *map(str, sorted(wheels.glob(f"*/lib/{RUNTIME}")))):
        with contextlib.suppress(OSError):
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            return


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for number, attribute in zip((major, minor), _CAPABILITY, strict=True):
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(name))
        said = f" ({name.value.decode()})" if name.value else ""
        raise DeviceError(f"the NVIDIA driver finds no GPU: {function} returned {status}{said}")
