"""Latencies of kernels as features of a population; a job keeps those that it began with."""

from __future__ import annotations

import time

import numpy as np
import pytest

from compilers.devices.base import device_identity
from compilers.devices.rpc import RpcConfig
from compilers.fusion import fuse
from compilers.kernel_library import KernelLibrary, generator_key
from compilers.kernel_records import KernelTiming
from compilers.kernel_space import space_kernels
from compilers.spec_graph import subnet_graph
from compilers.targets import ISAS
from search.kernel_latencies import SpaceKernelLatencies, job_kernel_latencies
from search.replay import REPLAY
from spaces import DeviceCapabilities, get_space
from spaces.population import sample
from tests.search.stand_in import make_stand

SMALL = {
    "resolution": [20], "stage*.depth": [1, 2], "stage*.expansion": [2], "stage*.kernel": [3],
    "stem.width": [8], "stage1.width": [16], "stage2.width": [24], "stage3.width": [48],
    "head.width": [96],
}  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return get_space("mobilenetv3_digits").restrict(choices=SMALL)


@pytest.fixture(scope="module")
def latencies(small):
    kernels = space_kernels(small)
    return dict(zip(kernels, np.random.default_rng(0).uniform(1, 50, len(kernels)), strict=True))


def test_sums_are_those_of_the_kernels_of_each_subnet(small, latencies):
    features = SpaceKernelLatencies(small, latencies)
    population = sample(small, 60, np.random.default_rng(1))
    found = features(population)
    assert features.templates == ("conv", "depthwise", "gemm", "global_pool", "squeeze_excite")
    assert found.shape == (60, 5)
    for row, sums in zip(population, found, strict=True):
        specs = small.layer_specs(small.from_indices(row))
        expected = dict.fromkeys(features.templates, 0.0)
        for call in fuse(subnet_graph(specs)).calls:
            expected[call.kernel.kind] += latencies[call.kernel] / 1e3
        np.testing.assert_allclose(sums, [expected[name] for name in features.templates])
    assert features(population[:0]).shape == (0, 5)


def test_a_hundred_thousand_configs_take_seconds(small, latencies):
    features = SpaceKernelLatencies(small, latencies)
    population = sample(small, 100_000, np.random.default_rng(2))
    features(population)
    start = time.process_time()
    assert np.isfinite(features(population)).all()
    assert time.process_time() - start < 3


def test_a_kernel_without_a_latency_is_not_a_number(small, latencies):
    missing = dict(latencies)
    kernel = next(k for k in latencies if k.kind == "squeeze_excite")
    del missing[kernel]
    population = sample(small, 60, np.random.default_rng(1))
    found = SpaceKernelLatencies(small, missing)(population)
    whole = SpaceKernelLatencies(small, latencies)(population)
    without = np.isnan(found).any(axis=1)
    assert 0 < without.sum() < len(population)
    np.testing.assert_allclose(found[~without], whole[~without])


@pytest.fixture
def stand(tmp_path, tiny_job, small):
    stand = make_stand(tmp_path, tiny_job, "cpu")
    capabilities = DeviceCapabilities("avx2", 1, 1, frozenset(), frozenset(), "here")
    device = stand.devices["cpu"]
    device.cache = tmp_path / "cache"
    stand.job.spec |= {
        "capabilities": {"cpu": capabilities.to_json()},
        "device_configs": {"cpu": device.config.model_dump(mode="json")},
    }
    stand.identity = device_identity(device.config, capabilities)
    stand.library = KernelLibrary(device.cache / "kernels")
    return stand


def store(stand, latencies):
    stand.library.store_timings(
        stand.identity,
        [
            KernelTiming(
                device=stand.identity,
                kernel=kernel,
                generator=generator_key(),
                median_us=us,
                p10_us=us,
                p90_us=us,
                repeats=1,
                call_us=0.0,
            )
            for kernel, us in latencies.items()
        ],
    )
    assert len(stand.library.timings(stand.identity, ISAS["avx2"])) >= len(latencies)


def ask(stand, space, job=None):
    return job_kernel_latencies(stand.store, job or stand.job, "cpu", space, stand.devices["cpu"])


def test_a_job_predicts_with_what_the_library_knew_when_it_began(stand, small, latencies):
    store(stand, latencies)
    population = sample(small, 20, np.random.default_rng(1))
    first = ask(stand, small)(population)
    np.testing.assert_allclose(first, SpaceKernelLatencies(small, latencies)(population))
    store(stand, {kernel: 2 * us for kernel, us in latencies.items()})
    np.testing.assert_array_equal(ask(stand, small)(population), first)
    # A replay predicts as the job that it replays did, without a device.
    spec = {**stand.job.spec, REPLAY: stand.job.id}
    again, _ = stand.store.jobs.record_job("again", spec, small.key, 1)
    replay = job_kernel_latencies(stand.store, again, "cpu", small, None)
    np.testing.assert_array_equal(replay(population), first)


def test_a_device_with_settings_of_its_own_has_latencies(stand, small, latencies):
    board = RpcConfig(name="cpu", isa="avx2", port=9999)
    stand.job.spec["device_configs"] = {"cpu": board.model_dump(mode="json")}
    capabilities = DeviceCapabilities.from_json(stand.job.spec["capabilities"]["cpu"])
    stand.identity = device_identity(board, capabilities)
    store(stand, latencies)
    population = sample(small, 5, np.random.default_rng(1))
    np.testing.assert_allclose(
        ask(stand, small)(population), SpaceKernelLatencies(small, latencies)(population)
    )


def test_an_incomplete_library_is_not_used_by_a_job_that_began_with_it(stand, small, latencies):
    *most, last = latencies
    store(stand, {kernel: latencies[kernel] for kernel in most})
    said = []
    device = stand.devices["cpu"]
    found = job_kernel_latencies(
        stand.store, stand.job, "cpu", small, device, lambda *report: said.append(report)
    )
    assert found is None
    assert f"1 of {len(latencies)} have no latency" in said[0][0]
    assert "netcarve kernels build" in said[0][0]
    store(stand, {last: 1.0})
    assert ask(stand, small) is None
    other, _ = stand.store.jobs.record_job("other", dict(stand.job.spec), small.key, 2)
    assert ask(stand, small, other) is not None


def test_without_a_library_there_is_nothing(stand, small):
    assert ask(stand, small) is None
    assert not stand.library.folder.exists()
