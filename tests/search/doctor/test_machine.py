from __future__ import annotations

import os

import pytest

from search.doctor import Check, Status, machine
from search.doctor.machine import GIB


def test_gpus_are_named_and_none_is_no_fault(monkeypatch):
    from compilers import cuda_driver
    from compilers.errors import DeviceError

    gpus = (cuda_driver.Gpu("Paper GPU", (8, 6)),)
    monkeypatch.setattr(cuda_driver, "find_gpus", lambda: gpus)
    assert machine.check_gpu() == Check("gpu", Status.OK, "Paper GPU (sm_86)")

    def none():
        raise DeviceError("no NVIDIA driver is installed here")

    monkeypatch.setattr(cuda_driver, "find_gpus", none)
    found = machine.check_gpu()
    assert found.status is Status.OK
    assert "no devices of kind cuda: no NVIDIA driver" in found.found


@pytest.mark.parametrize(
    ("flags", "status"),
    [({"sse2"}, Status.PROBLEM), (None, Status.WARNING)],
)
def test_cpus_without_vnni_and_without_avx2(monkeypatch, flags, status):
    from compilers import targets

    have = frozenset(flags) if flags else targets.ISAS["avx2"].cpu_flags
    monkeypatch.setattr(targets, "host_cpu_flags", lambda: have)
    found = machine.check_cpu()
    assert found.status is status
    assert "avx2" in found.found
    assert found.advice


@pytest.mark.parametrize(
    ("free", "status"),
    [(GIB, Status.PROBLEM), (3 * GIB, Status.WARNING), (9 * GIB, Status.OK)],
)
def test_memory(monkeypatch, free, status):
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    assert machine.check_memory().status is status


def test_a_container_limits_memory_and_cores(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable: 8388608 kB",
        "/sys/fs/cgroup/memory.max": str(2 * GIB),
        "/sys/fs/cgroup/memory.current": str(GIB),
        "/sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {GIB // 4}",
        "/sys/fs/cgroup/cpu.max": "50000 100000",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.free_memory() == GIB + GIB // 4
    assert machine.usable_cores() == 0.5
    assert machine.check_cores().status is Status.WARNING
    files["/sys/fs/cgroup/memory.max"] = "max"
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert machine.free_memory() == 8 * GIB
    assert machine.usable_cores() == len(os.sched_getaffinity(0))
