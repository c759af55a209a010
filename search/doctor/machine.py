"""Checks of the machine: processors, memory."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from search.doctor.check import Check, Status

GIB = 2**30
MIB = 2**20


def check_cpu() -> Check:
    """Instruction sets that both this processor and the kernels know."""
    from compilers.targets import ISAS, host_cpu_flags, host_isas

    name, isas = _cpu_name(), host_isas()
    if not isas:
        missing = sorted(ISAS["avx2"].cpu_flags - host_cpu_flags())
        return Check(
            "cpu",
            Status.PROBLEM,
            f"{name} executes none of {', '.join(ISAS)}; for avx2 it lacks {', '.join(missing)}",
            "Use an x86-64 processor with AVX2, on Linux.",
        )
    found = f"{name}: {', '.join(isas)}"
    if ISAS[isas[0]].int8_dot == "widen":
        advice = "8-bit layers run, but gain less than with avx512_vnni."
        return Check("cpu", Status.WARNING, found, advice)
    return Check("cpu", Status.OK, found)


def check_gpu() -> Check:
    """The NVIDIA GPUs. Only devices of kind `cuda` need one: it is no fault to have none."""
    from compilers.cuda_driver import find_gpus
    from compilers.errors import DeviceError

    try:
        found = ", ".join(f"{gpu.name} ({gpu.isa})" for gpu in find_gpus())
    except DeviceError as error:
        found = f"none, so no devices of kind cuda: {error}"
    return Check("gpu", Status.OK, found)


def check_cores() -> Check:
    """Cores that this process may use."""
    cores = usable_cores()
    if cores < 2:
        return Check(
            "cores",
            Status.WARNING,
            f"{cores:g}",
            "Measurements share the core with everything else: expect noise and a slow search.",
        )
    return Check("cores", Status.OK, f"{cores:g}")


def check_memory() -> Check:
    """Memory that is free for a search: training, a compiler child and Ray at once."""
    free = free_memory()
    if free is None:
        return Check("memory", Status.WARNING, "unknown", "Make sure that 4 GiB are free.")
    found = f"{free / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Check("memory", Status.PROBLEM, found, "Free some: at least 2 GiB, better 4 GiB.")
    if free < 4 * GIB:
        return Check("memory", Status.WARNING, found, "4 GiB are better.")
    return Check("memory", Status.OK, found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:  # noqa: S108 - Ray's place
    """Room for Ray's object store."""
    if not folder.is_dir():
        return Check("shared memory", Status.WARNING, f"no {folder}", "Ray uses the disk instead.")
    free = shutil.disk_usage(folder).free
    found = f"{free / MIB:.0f} MiB free in {folder}"
    if free < 128 * MIB:
        advice = "Ray uses the disk instead; in a container give it --shm-size=256m."
        return Check("shared memory", Status.WARNING, found, advice)
    return Check("shared memory", Status.OK, found)


def usable_cores() -> float:
    """Cores by affinity and by the container's quota, whichever is less."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def free_memory() -> int | None:
    """Bytes that may still be used, by the machine and by the container; None when unknown."""
    available = None
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if available is not None and limit.isdigit() and used.isdigit():
        # Page cache counts as used there and is given back when it is needed.
        statistics = _read("/sys/fs/cgroup/memory.stat").splitlines()
        cache = sum(int(x.split()[1]) for x in statistics if x.startswith("inactive_file "))
        available = min(available, int(limit) - int(used) + cache)
    return available


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
