"""A table is measured on real devices, goes on after kill -9, and survives what crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from compilers.built import Build
from compilers.errors import ChildCrashError, MismatchError
from compilers.measurement import Measurement
from compilers.targets import host_isas
from search import pool_batches
from search.device_pool import PoolDevice
from search.errors import RecordConflictError
from search.host_lock import HostLock
from search.latency_tables import space_key
from search.pool_build import build_pool, pool_configs
from search.progress import silent
from search.store import Store
from spaces import DeviceCapabilities, SpaceError, get_space
from spaces.layer_spec import Operator

ROOT = Path(__file__).parents[2]
TINY = {
    "resolution": (20,), "stage*.depth": (1,), "stage*.expansion": (2,), "*.se": (0,),
    "stem.width": (8,), "stage2.width": (24,), "stage3.width": (48,),
}  # fmt: skip


@pytest.fixture
def database(tmp_path, runtime_dir):
    """A store with the device `cpu`, for which the small space `tiny` is registered."""
    import yaml

    from compilers.devices import parse_device
    from search.devices import RegisteredDevice, record_devices, register_space_text

    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Store(url) as store:
        found = DeviceCapabilities(
            "avx2", 1, 1, frozenset(Operator), frozenset({"fp32", "w8a8"}), "cpu"
        )
        config = parse_device({"name": "cpu", "isa": "avx2"})
        record_devices(store, [RegisteredDevice("cpu", config, found)])
        choices = {name: list(values) for name, values in TINY.items()}
        text = yaml.safe_dump({"base": "mobilenetv3_digits", "name": "tiny", "choices": choices})
        register_space_text(store, text, "cpu")
    return url


@pytest.fixture
def store(database):
    with Store(database) as store:
        yield store


class StandIn:
    """A device that builds at once, and takes as many ms as a config is wide.

    Attributes:
        sessions: Keys of the configs of every session of all devices, with the device's name and
            who held the host.
        uncompiled: Keys of configs that no device can build.
        broken: Keys of configs that crash when they are measured.
    """

    sessions: ClassVar[list] = []
    uncompiled: ClassVar[set] = set()
    broken: ClassVar[set] = set()

    def __init__(self, config, cache=None):
        self.config, self.hardware, self.build_key = config, "stand-in", config.isa

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def close(self):
        pass

    def compile_in(self, compiler):
        assert compiler.role == "compiler"

    def probe(self):
        return DeviceCapabilities("", 1, 1, frozenset(Operator), frozenset({"fp32"}))

    def build(self, subnet, specs, out_dir, sample=None):
        key = Path(out_dir).parent.name
        if key in self.uncompiled:
            raise MismatchError("wrong logits")
        return Build(
            folder=Path(key), specs=tuple(specs), isa=self.config.isa, threads=1, cpu_flags=(),
            input_shape=(), input_dtype="", output_shape=(), kernels=(), tolerance=0, difference=0,
            seconds=0, hardware="", versions={},
        )  # fmt: skip

    def time(self, builds, config=None):
        keys = [build.folder.name for build in builds]
        if not keys:
            return []
        held = [holder.mode for holder in HostLock().holders()]
        StandIn.sessions.append((self.config.name, keys, held))
        if self.broken & set(keys):
            raise ChildCrashError("crashed", 11)
        widths = [sum(spec.out_channels for spec in build.specs) for build in builds]
        return [Measurement(ms, ms, ms, 1, 1, "", 1.0, 0.0, 1) for ms in map(float, widths)]


@pytest.fixture
def stand_in(monkeypatch):
    """Two devices that answer at once, as the default pool."""
    from compilers.devices import DeviceConfig

    pool = [PoolDevice(DeviceConfig(name=name), f"family-{name}") for name in ("a", "b")]
    for module in ("search.pool_build", "search.pool_batches"):
        monkeypatch.setattr(f"{module}.make_device", StandIn)
    monkeypatch.setattr("search.pool_build.find_pool", lambda _store, _names: pool)
    monkeypatch.setattr(pool_batches, "BATCH", 3)
    for name in ("sessions", "uncompiled", "broken"):
        monkeypatch.setattr(StandIn, name, type(getattr(StandIn, name))())
    return StandIn


def test_the_configs_are_always_the_same_and_known_ones_come_first(space):
    few, many = pool_configs(space, [], 5), pool_configs(space, [], 100)
    assert many[:5] == few
    assert len(set(many)) == 100
    other = pool_configs(space, [], 40)[-1]
    again = pool_configs(space, [other.to_json(), {"resolution": 9}], 5)
    assert again == [other, *few[:4]]
    tiny = space.restrict(
        choices={
            n: (d.choices[0],)
            for n, d in zip(space.names, space.dimensions, strict=True)
            if n != "resolution"
        }
    )
    assert len(pool_configs(tiny, [], 9)) == 4, "all there are"


@pytest.mark.slow
def test_a_compiled_device_executes_quantised_configs(store):
    device = f"tvm-{host_isas()[-1]}-t1"
    report = build_pool(
        store, "tiny", silent, devices=[device], configs=2, repeats=1.0, processes=1
    )
    assert (report.measured, report.repeated, report.failed) == (2, 2, 0), report.failures
    table = store.latencies.read(report.table)
    rows = [values.items() for values in table.configs.values()]
    bits = {value for row in rows for name, value in row if name.endswith("w_bits")}
    assert bits == {8, 32}, "all that compiled devices execute"
    assert ((table.latencies[device] > 0.001) & (table.latencies[device] < 1000)).all()


@pytest.mark.slow
def test_killed_it_goes_on_with_the_same_configs(database, runtime_dir):
    program = ROOT / "tests" / "search" / "pool_child.py"
    child = [sys.executable, program, database, "4", "torch-t1-b1"]
    key = space_key(get_space("mobilenetv3_digits"))

    def recorded():
        with Store(database) as store:
            if not store.latencies.of_space(key):
                return None
            return store.latencies.read("mobilenetv3_digits")

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(child, env=environment)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        before = recorded()
        if before is not None and len(before.configs) >= 1:
            break
        time.sleep(0.05)
    assert process.poll() is None, "ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = recorded()
    assert 1 <= len(before.configs) < 4
    assert subprocess.run(child, env=environment, check=True, timeout=200).returncode == 0
    after = recorded()
    space = get_space("mobilenetv3_digits").restrict(choices={**TINY, "*.w_bits": (32,)})
    assert set(after.configs) == {config.key for config in pool_configs(space, [], 4)}
    first, whole = before.latencies["torch-t1-b1"], after.latencies["torch-t1-b1"]
    assert not np.isnan(whole).any()
    np.testing.assert_array_equal(whole[: len(first)], first)


def test_what_crashes_costs_itself_alone_and_is_recorded(store, stand_in):
    space = get_space("mobilenetv3_digits").restrict(choices={**TINY, "*.w_bits": (32,)})
    keys = [config.key for config in pool_configs(space, [], 7)]
    stand_in.uncompiled, stand_in.broken = {keys[1]}, {keys[3], keys[5]}
    report = build_pool(store, "tiny", silent, configs=7)
    assert (report.pairs, report.measured, report.failed) == (14, 8, 6)
    assert report.complete
    table = store.latencies.read("mobilenetv3_digits")
    assert list(table.configs) == keys
    for name in ("a", "b"):
        assert np.isnan(table.latencies[name]).tolist() == [k in {1, 3, 5} for k in range(7)]
        assert table.failures[keys[1], name] == "MismatchError: wrong logits"
        assert table.failures[keys[3], name] == "ChildCrashError: crashed"
    assert report.failures == dict.fromkeys("ab", "MismatchError: wrong logits")
    stand_in.broken = {keys[5]}
    assert build_pool(store, "tiny", silent, configs=7).known == 14
    again = build_pool(store, "tiny", silent, configs=7, retry=True)
    assert (again.known, again.measured, again.failed) == (8, 2, 4)
    assert set(store.latencies.read("mobilenetv3_digits").failures) == {
        (keys[n], name) for n in (1, 5) for name in "ab"
    }


def test_a_measurement_owns_the_host_and_repeats_come_after_the_others(store, stand_in):
    build_pool(store, "tiny", silent, configs=3, repeats=1.0)
    assert [(name, len(keys)) for name, keys, _ in stand_in.sessions] == [
        ("a", 3), ("b", 3), ("a", 3), ("b", 3),
    ]  # fmt: skip
    assert all(held == ["exclusive"] for _, _, held in stand_in.sessions)
    stand_in.sessions.clear()
    report = build_pool(store, "tiny", silent, configs=30)
    table = store.latencies.read("mobilenetv3_digits")
    repeated = sum(int((~np.isnan(ms)).sum()) for ms in table.repeats.values())
    assert repeated == report.repeated + 6
    assert 2 <= report.repeated <= 22, "about a fifth of 54"
    assert build_pool(store, "tiny", silent, configs=36, repeats=0.0).repeated == 0


def test_a_session_that_disagrees_with_itself_is_repeated_once(store, stand_in, monkeypatch):
    timed, ratios = stand_in.time, [1.3, 0.8, 1.2, 1.02, 0.97]

    def unsteady(self, builds, config=None):
        ratio = ratios.pop(0) if builds else 1.0
        found = timed(self, builds, config)
        return [replace(one, median_ms=one.median_ms * ratio, aa_ratio=ratio) for one in found]

    monkeypatch.setattr(stand_in, "time", unsteady)
    build_pool(store, "tiny", silent, configs=3, repeats=0.0)
    assert [name for name, _, _ in stand_in.sessions] == ["a", "a", "b", "b"]
    table = store.latencies.read("mobilenetv3_digits")
    found = table.latencies["b"] / table.latencies["a"]
    np.testing.assert_allclose(found, 1.02 / 0.8)


def test_it_ends_in_the_stated_time_and_goes_on(store, stand_in, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    timed = stand_in.time

    def slow(self, builds, config=None):
        clock[0] += 10.0 * len(builds)
        return timed(self, builds, config)

    monkeypatch.setattr(stand_in, "time", slow)
    # A batch of three configs takes two devices a minute.
    run = {"configs": 9, "repeats": 0.0}
    report = build_pool(store, "tiny", silent, minutes=2.5, **run)
    # For half a batch there is time, too, but only for whole configs.
    assert (report.measured, report.complete, report.seconds) == (14, False, 140.0)
    assert report.seconds_per_pair == 10.0
    assert build_pool(store, "tiny", silent, minutes=0.5, **run).measured == 4
    report = build_pool(store, "tiny", silent, minutes=0.0, **run)
    assert (report.measured, report.known, report.complete) == (0, 18, True)


def test_a_new_device_is_measured_on_the_configs_of_the_others(store, stand_in, monkeypatch):
    build_pool(store, "tiny", silent, configs=4)
    from compilers.devices import DeviceConfig

    pool = [PoolDevice(DeviceConfig(name=name), f"family-{name}") for name in ("a", "c")]
    monkeypatch.setattr("search.pool_build.find_pool", lambda _store, _names: pool)
    report = build_pool(store, "tiny", silent, configs=4)
    assert (report.known, report.measured) == (4, 4)
    table = store.latencies.read("mobilenetv3_digits")
    assert len(table.configs) == 4
    assert [device.name for device in table.devices] == ["a", "b", "c"]
    np.testing.assert_array_equal(table.latencies["c"], table.latencies["a"])


def test_another_table_and_what_cannot_be(store, stand_in, monkeypatch):
    assert build_pool(store, "tiny", silent, configs=2, table="mine").table == "mine"
    monkeypatch.setattr(stand_in, "hardware", "another", raising=False)

    def other(self, config, cache=None):
        self.config, self.hardware, self.build_key = config, "another", config.isa

    monkeypatch.setattr(stand_in, "__init__", other)
    with pytest.raises(RecordConflictError, match="'a' of latency table 'mine' is another one"):
        build_pool(store, "tiny", silent, configs=2, table="mine")
    monkeypatch.setattr(
        stand_in,
        "probe",
        lambda self: DeviceCapabilities("", 1, 1, frozenset(), frozenset({"fp32"})),
    )
    with pytest.raises(SpaceError, match="which the device does not execute"):
        build_pool(store, "tiny", silent, configs=2)
