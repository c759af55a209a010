from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compilers.built import Build
from compilers.bundle import BundleInfo, write_bundle
from compilers.devices import Device, DeviceConfig, LocalCpu
from compilers.errors import BundleError, DeviceError, MeasurementError
from compilers.intrinsics import integer_dot
from compilers.measurement import MeasurementConfig
from compilers.profile import Profile, profile_bundle
from compilers.targets import ISAS
from spaces.cost import cost, layer_cost

# Everything here needs compiled subnets.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

SCALE = 4
CONFIG = MeasurementConfig(warmup_ms=5, min_repeats=30, max_repeats=60)


@pytest.fixture(scope="module")
def build(device, subnets, make_subnet, tmp_path_factory) -> Build:
    """The mixed subnet on images large enough for the kernels to outweigh the calls."""

    def enlarged(size):
        return SCALE * size if size > 1 else 1

    specs = tuple(
        replace(spec, in_size=enlarged(spec.in_size), out_size=enlarged(spec.out_size))
        for spec in subnets["mixed"].specs
    )
    return device.build(make_subnet(specs), specs, tmp_path_factory.mktemp("build") / "b")


@pytest.fixture(scope="module")
def bundle(device, build, tmp_path_factory) -> Path:
    info = BundleInfo(config={"resolution": 48}, space="handmade")
    return write_bundle(tmp_path_factory.mktemp("out") / "b", build, device, info, archive=False)


@pytest.fixture(scope="module")
def profile(bundle) -> Profile:
    return profile_bundle(bundle, config=CONFIG)


def layers(profile):
    """The kernel calls that execute a layer."""
    return [k for k in profile.kernels if k.kernel not in ("Quantize", "Dequantize")]


def test_every_layer_appears_in_order_with_its_work(profile, build):
    specs = build.specs
    assert [k.symbol for k in profile.kernels] == [r.symbol for r in build.kernels]
    assert [(k.site, k.macs) for k in layers(profile)] == [
        (spec.site, layer_cost(spec).macs) for spec in specs
    ]
    assert sum(kernel.macs for kernel in profile.kernels) == cost(specs).macs
    by_site = {spec.site: spec for spec in specs}
    for kernel in layers(profile):
        spec = by_site[kernel.site]
        assert kernel.output_shape == (spec.out_size**2, spec.out_channels)
        assert (kernel.window, kernel.stride) == (spec.kernel, spec.stride)


def test_bytes_are_those_of_the_tensors(profile):
    (head,) = (kernel for kernel in profile.kernels if kernel.site == "head")
    assert (head.input_shape, head.output_shape) == ((144, 24), (144, 64))
    assert (head.input_dtype, head.output_dtype) == ("uint8", "float32")
    # AVX2 multiplies 16-bit integers.
    weight = np.dtype(integer_dot(ISAS[profile.roofline.isa]).weight_dtype).itemsize
    # Input, output, weights, and per channel a start and a scale; then seven scalars.
    assert head.bytes == 144 * 24 + 4 * 144 * 64 + weight * 24 * 64 + 2 * 4 * 64 + 4 * 7
    assert head.intensity == pytest.approx(2 * head.macs / head.bytes)


def test_the_kernels_take_the_time_of_the_inference(profile):
    assert all(kernel.measurement.median_ms > 0 for kernel in profile.kernels)
    assert 0.5 < profile.kernel_sum_ms / profile.latency.median_ms < 2
    assert sum(kernel.share for kernel in profile.kernels) == pytest.approx(1)
    for kernel in layers(profile):
        assert kernel.gops == pytest.approx(2e-6 * kernel.macs / kernel.measurement.median_ms)


def test_no_kernel_is_above_the_measured_roofline(profile, build):
    roofline = profile.roofline
    assert roofline.isa == build.isa
    assert all(0 < kernel.roofline_fraction <= 1.3 for kernel in profile.kernels)
    assert 1 < roofline.float32_gops < 1000
    if roofline.isa == "avx512_vnni":
        assert roofline.int8_gops > 2 * roofline.float32_gops
    first, *_, last = roofline.bandwidths
    assert (first.level, last.level, last.capacity) == ("L1", "memory", None)
    assert first.gbytes_per_s > last.gbytes_per_s > 0.5
    for kernel, spec in zip(layers(profile), build.specs, strict=True):
        assert kernel.arithmetic == ("float32" if spec.precision.weight is None else "int8")
        assert kernel.bound.limit in (kernel.arithmetic, *(b.level for b in roofline.bandwidths))


def test_a_cold_cache_is_not_faster(profile):
    assert (profile.latency.cache, profile.cold.cache) == ("warm", "cold")
    # Not medians: other work on the machine raises them, and not of both alike.
    assert profile.cold.p10_ms > 0.9 * profile.latency.p10_ms


def test_peak_memory(profile, build):
    specs = build.specs
    stored = cost(specs).bytes
    # Packing pads the channels of some layers, at most to a whole vector.
    assert 0.9 * stored < profile.weight_bytes < 3 * stored
    largest = max(spec.out_size**2 * spec.out_channels for spec in specs)
    assert profile.workspace_bytes >= largest
    assert profile.workspace_bytes < 4 * sum(s.out_size**2 * s.out_channels for s in specs)
    assert profile.peak_rss_bytes is not None
    assert 10e6 < profile.peak_rss_bytes < 1e9


def test_a_profile_is_json(profile):
    data = json.loads(json.dumps(profile.to_json(), allow_nan=False))
    assert set(data) == {
        "hardware", "latency", "cold", "throttled", "kernel_sum_ms", "kernel_sum_of_latency",
        "kernels", "roofline", "memory",
    }  # fmt: skip
    for found, kernel in zip(data["kernels"], profile.kernels, strict=True):
        assert found["site"] == kernel.site
        assert found["p10_us"] <= found["median_us"] <= found["p90_us"]
        assert found["median_us"] == pytest.approx(1e3 * kernel.measurement.median_ms)
        assert found["roofline_fraction"] == pytest.approx(kernel.roofline_fraction)
        assert found["limit"] in ("float32", "int8", "L1", "L2", "L3", "memory")


def test_a_damaged_bundle_is_not_loaded(bundle, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("used before the hashes were checked")

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    content = bytearray((copy / "library.so").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "library.so").write_bytes(content)
    monkeypatch.setattr("compilers.isolation.Worker.request", fail)
    with pytest.raises(BundleError, match=r"library\.so: corrupt"):
        profile_bundle(copy)


def test_a_kernel_that_executes_no_layer_is_an_error(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["kernels"][0]["site"] = "nowhere"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="'nowhere', which is none of its layers: stem, "):
        profile_bundle(copy)


def test_a_library_that_calls_other_kernels_than_recorded_is_an_error(device, build):
    with pytest.raises(MeasurementError, match="but its record says"):
        device.profile(replace(build, kernels=build.kernels[::-1]), CONFIG)


def test_single_kernels_are_not_measured_cold(device, build):
    with pytest.raises(MeasurementError, match="warm cache, not a cold one"):
        device.profile(build, replace(CONFIG, cache="cold"))


def test_a_kind_of_device_may_be_unable_to_profile(build):
    class Other(LocalCpu):
        profile = Device.profile
        roofline = Device.roofline

    other = Other(DeviceConfig(name="far"))
    with pytest.raises(DeviceError, match="far: the kind 'local_cpu' cannot time single kernels"):
        other.profile(build)
    with pytest.raises(DeviceError, match="cannot measure its roofline"):
        other.roofline()
