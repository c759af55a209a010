"""Which devices one machine can be, and what makes a family."""

from __future__ import annotations

import platform

import pytest

from compilers.devices import parse_device
from compilers.errors import DeviceError
from compilers.targets import host_isas
from search.device_pool import default_pool, device_family, find_pool
from search.devices import RegisteredDevice, record_devices
from search.errors import SearchError
from search.store import Store
from spaces import DeviceCapabilities, UnknownNameError


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def register(store, **settings):
    config = parse_device(settings)
    found = DeviceCapabilities("avx2", 1, 1, frozenset(), frozenset({"fp32"}), "board")
    record_devices(store, [RegisteredDevice(config.name, config, found)])


def test_a_family_is_the_code_that_runs():
    assert device_family("local_cpu", "avx2") == "tvm-avx2"
    assert device_family("tvm_rpc", "avx2") == "tvm-avx2"
    assert device_family("local_cpu", "avx512") == "tvm-avx512"
    assert device_family("local_cpu", "avx512_vnni") == "tvm-avx512"
    assert device_family("onnxruntime", "native") == "onnxruntime"


def test_the_default_pool_is_large_and_varied():
    pool = {device.name: device for device in default_pool()}
    assert pool["torch-t2-b8"].config.model_dump() == {
        "name": "torch-t2-b8", "kind": "torch", "isa": "native", "threads": 2, "batch": 8,
    }  # fmt: skip
    assert pool["onnxruntime-t1-b1"].family == "onnxruntime"
    if platform.machine() == "x86_64":
        assert len(pool) == 14
        assert len({device.family for device in pool.values()}) == 4
        for isa in ("avx512_vnni", "avx512", "avx2"):
            for threads in (1, 2):
                device = pool[f"tvm-{isa}-t{threads}"]
                assert (device.config.isa, device.config.threads) == (isa, threads)
                assert (isa in host_isas()) or "lacks" in device.missing


def test_what_this_machine_cannot_be_says_why(store, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    pool = {device.name: device for device in default_pool()}
    assert pool["torch-t1-b1"].missing == ""
    assert "threads is 2; allowed: 1 to 1" in pool["torch-t2-b1"].missing
    assert not pool["torch-t2-b1"].to_json()["available"]
    names = [device.name for device in find_pool(store)]
    assert "torch-t1-b1" in names
    assert not [name for name in names if "-t2" in name]
    with pytest.raises(DeviceError, match="threads is 2"):
        find_pool(store, ["torch-t1-b1", "torch-t2-b1"])


def test_named_devices(store):
    register(store, name="board", isa="avx2")
    register(store, name="arm", kind="emulated_aarch64", runtime="/none")
    found = find_pool(store, ["board", "torch-t1-b1", "board"])
    assert [(device.name, device.family) for device in found] == [
        ("board", "tvm-avx2"),
        ("torch-t1-b1", "torch"),
    ]
    with pytest.raises(UnknownNameError, match=r"unknown device 'bord'. Did you mean 'board'"):
        find_pool(store, ["bord"])
    with pytest.raises(SearchError, match="'emulated_aarch64', which has no latencies"):
        find_pool(store, ["arm"])
