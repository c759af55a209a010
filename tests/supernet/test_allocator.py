"""Freed memory stays while it is asked to, and is handed back afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, os, resource
import torch
from supernet.allocator import kept_memory

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

with kept_memory():
    faults(16)
    kept, held = faults(16), resident()
# Larger: a hole of 16 MB that was left between other blocks would be taken again and again.
print(json.dumps([kept, held, resident(), faults(24)]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="needs glibc")
def test_steps_reuse_their_memory_and_the_end_hands_it_back() -> None:
    command = [sys.executable, "-c", MEASURE]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept, held, after, ordinary = json.loads(out)
    megabyte = 2**20 / os.sysconf("SC_PAGE_SIZE")
    assert kept < 10 * 16 * megabyte / 100
    assert ordinary > 10 * 24 * megabyte / 2
    assert held - after > 12  # MB of the 16 that were free
