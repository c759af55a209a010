"""Latencies of kernels as features of configs: what the kernel library knows, for predictors.

A job asks the library once for each device and keeps the answer, so that its predictions do not
change when the library does, and a replay predicts what the replayed job did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compilers.devices import Device, parse_device
from compilers.devices.base import device_identity
from compilers.kernel_library import KernelLibrary
from search.models import JobRow
from search.progress import Progress, silent
from search.replay import replayed
from search.store import Store
from spaces import DeviceCapabilities, LayerSpec, Population, SearchSpace

if TYPE_CHECKING:
    from compilers.kernels.base import Kernel

FloatArray = NDArray[np.float64]
_BLOCK = 4096


class SpaceKernelLatencies:
    """Population -> summed latencies of the kernels of each config, by kernel template.

    Slots are mapped to kernels one by one and remembered, so that a population of 10^5 configs
    takes a second or two.

    Args:
        space: The space.
        latencies: Kernel -> microseconds, for every kernel of the space.
    """

    def __init__(self, space: SearchSpace, latencies: Mapping[Kernel, float]) -> None:
        self.space = space
        self.latencies = latencies
        self.templates = tuple(sorted({kernel.kind for kernel in latencies}))
        self._first = space.layer_specs(space.min_config())[0].site

    def __call__(self, population: Population) -> FloatArray:
        """Summed latencies.

        Args:
            population: int16 (n, d).

        Returns:
            float64 (n, templates) in ms, NaN where a kernel has no latency.
        """
        blocks = range(0, len(population), _BLOCK)
        found = [self._block(population[start : start + _BLOCK]) for start in blocks]
        return np.concatenate(found) if found else np.zeros((0, len(self.templates)))

    def _block(self, population: Population) -> FloatArray:
        # [n, slots, 2 + 2 t]
        slots = self.space.slot_features(population, self._slot)
        count = len(self.templates)
        total = np.zeros((len(population), count))
        quantised_after = np.zeros(len(population), np.bool_)
        for number in reversed(range(slots.shape[1])):
            present, reads_integers = slots[:, number, 0] > 0, slots[:, number, 1] > 0
            plain, quantised = slots[:, number, 2 : 2 + count], slots[:, number, 2 + count :]
            total += np.where(quantised_after[:, None], quantised, plain)
            quantised_after = np.where(present, reads_integers, quantised_after)
        return total / 1e3

    def _slot(self, layers: tuple[LayerSpec, ...]) -> FloatArray:
        """[1, reads integers, us by template before a float reader, and before an integer one]."""
        from compilers.kernel_space import block_kernels, quantised_input

        first = layers[0].site == self._first
        sums = [
            self._sums(block_kernels(layers, reads_input=first, quantised_after=after))
            for after in (False, True)
        ]
        return np.concatenate([[1.0, float(quantised_input(layers))], *sums])

    def _sums(self, kernels: Iterable[Kernel]) -> FloatArray:
        sums = dict.fromkeys(self.templates, 0.0)
        for kernel in kernels:
            # A kernel that no subnet of the space has is asked for too, behind the last slot.
            latency = self.latencies.get(kernel, np.nan)
            sums[kernel.kind] = sums.get(kernel.kind, 0.0) + latency
        return np.array([sums[template] for template in self.templates])


def job_kernel_latencies(
    store: Store,
    job: JobRow,
    name: str,
    space: SearchSpace,
    device: Device | None,
    progress: Progress = silent,
) -> SpaceKernelLatencies | None:
    """The kernel latencies that a job predicts with; None where the library lacks some.

    Args:
        store: The store.
        job: The job, which keeps what is found here the first time.
        name: One of its devices.
        space: What the job may use there.
        device: The device; None in a replay.
        progress: Told when the library knows some kernels, but too few to be used.

    Raises:
        KernelLibraryError: The library cannot be read.
    """
    checkpoint = f"kernel-latencies/{name}"
    stored = store.jobs.checkpoint(job.id, checkpoint)
    if stored is None:
        source = replayed(job)
        if source is not None:
            stored = store.jobs.checkpoint(source, checkpoint) or {"kernels": []}
        else:
            stored = {"kernels": _known(job, name, space, device, progress)}
        store.jobs.save_checkpoint(job.id, checkpoint, stored)
    if not stored["kernels"]:
        return None
    from compilers.kernel_records import parse_kernel

    latencies = {parse_kernel(kernel): float(us) for kernel, us in stored["kernels"]}
    return SpaceKernelLatencies(space, latencies)


def _known(
    job: JobRow, name: str, space: SearchSpace, device: Device | None, progress: Progress
) -> list[Any]:
    """(kernel as JSON, microseconds) of every kernel of the space, or nothing if one is missing."""
    if device is None or device.cache is None:
        return []
    capabilities = DeviceCapabilities.from_json(job.spec["capabilities"][name])
    config = parse_device(job.spec["device_configs"][name])
    identity = device_identity(config, capabilities)
    library = KernelLibrary(device.cache / "kernels")
    if not library.timings_file(identity).exists():
        return []
    # These import TVM, which a job without such a file has no need of here.
    from compilers.kernel_fill import device_isa
    from compilers.kernel_records import describe
    from compilers.kernel_space import space_kernels

    timings = library.timings(identity, device_isa(capabilities))
    kernels = space_kernels(space)
    missing = sum(kernel not in timings for kernel in kernels)
    if missing:
        progress(
            f"kernels of {name} are not used, {missing} of {len(kernels)} have no latency; measure "
            "them for the next job: netcarve kernels build",
            0,
            0,
        )
        return []
    return [[describe(kernel), timings[kernel].latency_us] for kernel in kernels]
