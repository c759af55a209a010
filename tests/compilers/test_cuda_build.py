"""The way to a GPU's code, without a GPU: schedules, their limits, CUDA source, numerics."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compilers.check import FLOAT_TOLERANCE
from compilers.cuda_build import (
    MOST_THREADS,
    SHARED_BYTES,
    build_cuda_library,
    import_module,
)
from compilers.errors import BuildError, UnsupportedOperatorError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["digits", "transformer", "operators"]
KERNEL = re.compile(r'extern "C" __global__ void __launch_bounds__\((\d+)\) (\w+)\([^)]*\) \{')
SHARED = re.compile(r"__shared__ (?:alignas\(\d+\) )?float \w+\[(\d+)\]")


@pytest.fixture(scope="module")
def lowered():
    """Network -> what `cuda_lowering` found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.compilers.cuda_lowering", *NAMES],
        cwd=ROOT,
        env={**os.environ, "TVM_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=NAMES)
def network(request, lowered):
    return lowered[request.param]


def test_every_function_is_bound_to_blocks_and_threads(network):
    assert len(network["threads"]) >= 10
    for name, tags in network["threads"].items():
        assert "blockIdx.x" in tags, name
        assert "threadIdx.x" in tags, name


def test_every_kernel_keeps_the_limits_of_a_gpu(network):
    assert all(network["verified"])
    assert len(network["verified"]) >= len(network["threads"])
    # What verifies can tell.
    assert not any(network["verified_for_one_thread"])


def test_the_source_has_a_kernel_for_every_function(network):
    bodies = re.split(r'(?=extern "C" __global__)', network["source"])
    found = {}
    for body in bodies:
        if (kernel := KERNEL.match(body)) is not None:
            threads, name = kernel.groups()
            found[name.removesuffix("_kernel")] = (int(threads), body)
    assert set(network["threads"]) <= set(found)
    for threads, body in found.values():
        assert 1 < threads <= MOST_THREADS
        assert 4 * sum(map(int, SHARED.findall(body))) <= SHARED_BYTES


def test_dense_layers_are_tiled_through_shared_memory(lowered):
    for name, kind in (("digits", "conv2d"), ("transformer", "matmul")):
        bodies = re.split(r'(?=extern "C" __global__)', lowered[name]["source"])
        tiled = [b for b in bodies if "__shared__" in b and "__syncthreads()" in b]
        assert any(kind in KERNEL.match(b).group(2) for b in tiled)


def test_the_schedules_compute_what_the_module_computes(network):
    assert network["difference"] <= FLOAT_TOLERANCE


class Unknown(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


def test_an_operator_that_cannot_be_imported_is_named():
    with pytest.raises(UnsupportedOperatorError, match="svd"):
        import_module(Unknown(), torch.zeros(1, 3, 4, 4))


def test_without_nvcc_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"nvcc, .* CUDA toolkit, is not on PATH"):
        build_cuda_library(Unknown(), torch.zeros(1, 3, 4, 4), "sm_80", tmp_path / "x.so")
