from __future__ import annotations

import random
import time

import numpy as np
import pytest

import compilers.measurement as measurement
from compilers.errors import MeasurementError
from compilers.measurement import (
    Measurement,
    MeasurementConfig,
    drift,
    measure_interleaved,
    median_bounds,
    median_interval,
    quantile,
)


class Machine:
    """A clock that only the measured functions move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter_ns", lambda: int(self.now))

    def function(self, name: str, microseconds, noise: float = 0.0):
        rng = random.Random(name)

        def call() -> None:
            self.calls.append(name)
            self.now += microseconds * 1e3 * (1 + noise * rng.random())

        return call


def test_medians_are_milliseconds_per_call(monkeypatch):
    machine = Machine(monkeypatch)
    fast, slow = measure_interleaved([machine.function("a", 20), machine.function("b", 3000)])
    assert fast.median_ms == pytest.approx(0.02, rel=1e-3)
    assert slow.median_ms == pytest.approx(3.0, rel=1e-3)
    assert fast.batch == 50
    assert slow.batch == 1
    assert fast.aa_ratio == pytest.approx(1.0)
    assert fast.p10_ms <= fast.median_ms <= fast.p90_ms
    assert fast.warmup >= 30 / 0.02


def test_a_steady_machine_needs_the_least_repeats_a_noisy_one_more(monkeypatch):
    machine = Machine(monkeypatch)
    config = MeasurementConfig(min_repeats=20, max_repeats=300)
    steady = measure_interleaved([machine.function("a", 900)], config)[0]
    noisy = measure_interleaved([machine.function("b", 900, noise=0.2)], config)[0]
    hopeless = measure_interleaved([machine.function("c", 900, noise=40.0)], config)[0]
    assert steady.repeats == 20
    assert 20 < noisy.repeats < 300
    assert noisy.interval < config.interval
    assert hopeless.repeats == 300


def test_functions_alternate_in_changing_order(monkeypatch):
    machine = Machine(monkeypatch)
    names = "abc"
    functions = [machine.function(name, 2000) for name in names]
    measure_interleaved(functions, MeasurementConfig(min_repeats=30, warmup_ms=0))
    rounds = "".join(machine.calls[-30 * 4 :])
    orders = {rounds[i : i + 4] for i in range(0, len(rounds), 4)}
    assert len(orders) > 3
    assert all(sorted(order) == sorted("aabc") for order in orders)


def test_the_twin_tells_what_the_set_up_gets_wrong(monkeypatch):
    machine = Machine(monkeypatch)
    found = measure_interleaved(
        [machine.function("a", 1000), machine.function("b", 10)],
        twin=machine.function("twin", 1100),
    )
    assert [m.aa_ratio for m in found] == pytest.approx([1.1, 1.1])


def test_quantiles_are_numpy_s():
    samples = list(np.random.default_rng(0).lognormal(size=37))
    for q in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(samples, q) == pytest.approx(np.quantile(samples, q))


@pytest.mark.parametrize("count", [40, 80, 400])
def test_the_interval_of_the_median_covers_the_truth_as_often_as_it_says(count):
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        low, high = median_bounds(list(rng.exponential(size=count) + 1))
        covered += low <= 1 + np.log(2) <= high
    # Too narrow an interval is as wrong as too wide a one; ends are whole samples.
    assert 0.94 * 2000 < covered < 0.985 * 2000


def test_the_relative_interval_is_the_width_by_the_median():
    samples = list(np.random.default_rng(2).exponential(size=50) + 1)
    low, high = median_bounds(samples)
    assert median_interval(samples) == pytest.approx((high - low) / np.median(samples))
    assert median_interval([1.0] * 50) == 0


def test_a_measurement_survives_json():
    original = Measurement(1.0, 0.9, 1.2, 40, 10, measurement.CLOCK, 1.01, 0.02, 5)
    assert Measurement.from_json(original.to_json()) == original


def test_a_measurement_of_an_older_version_can_be_read():
    new = {"cache", "drift", "reference_drift"}
    stored = Measurement(1.0, 0.9, 1.2, 40, 10, measurement.CLOCK, 1.01, 0.02, 5).to_json()
    old = Measurement.from_json({name: v for name, v in stored.items() if name not in new})
    assert old.cache == "warm"
    assert (old.drift, old.reference_drift, old.throttled) == (None, None, False)


def test_samplers_are_given_batches_and_return_means(monkeypatch):
    machine = Machine(monkeypatch)
    asked = []

    def sampler(batch):
        asked.append(batch)
        return 0.01

    config = MeasurementConfig(warmup_ms=1, min_repeats=10)
    found, other = measurement.measure_samplers(
        [sampler, measurement.timed(machine.function("a", 20))], config
    )
    assert found.median_ms == 0.01
    assert found.batch == 100
    assert asked[-10:] == [100] * 10
    assert found.warmup >= 1 / 0.01
    assert other.median_ms == pytest.approx(0.02)


def test_a_cold_cache_is_flushed_before_every_call(monkeypatch):
    machine = Machine(monkeypatch)
    monkeypatch.setattr(measurement, "CacheFlush", lambda: lambda: machine.calls.append("flush"))
    config = MeasurementConfig(min_repeats=12, max_repeats=12, cache="cold")
    found = measure_interleaved([machine.function("a", 20), machine.function("b", 30)], config)
    assert [(m.batch, m.cache, m.repeats) for m in found] == [(1, "cold", 12)] * 2
    first = machine.calls.index("flush")
    timed = machine.calls[first:]
    assert len(timed) == 2 * 3 * 12
    assert set(timed[::2]) == {"flush"}
    assert "flush" not in timed[1::2]


@pytest.mark.alone
def test_a_call_on_flushed_data_takes_longer():
    data = np.ones(1 << 16)
    config = {"warmup_ms": 5, "min_repeats": 15, "max_repeats": 15}
    warm, cold = (
        measure_interleaved([data.sum], MeasurementConfig(cache=cache, **config))[0]
        for cache in ("warm", "cold")
    )
    # Not medians: other work on the machine raises them, and not of both alike.
    assert cold.p10_ms > 1.2 * warm.p10_ms


def test_an_unknown_state_of_the_cache_is_refused():
    with pytest.raises(MeasurementError, match="cache is 'tepid'; allowed: warm, cold"):
        MeasurementConfig(cache="tepid")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([1.0, 1.0, 9.0, 9.0, 9.0, 2.0, 2.0], 2.0),
        ([2.0, 5.0, 1.0], 0.5),
        ([1.0, 2.0], None),
        ([0.0] * 9, None),
    ],
)
def test_drift_compares_the_last_third_with_the_first(samples, expected):
    assert drift(samples) == expected


def test_a_machine_that_slows_down_is_told_from_a_steady_one(monkeypatch):
    def slowing(factor):
        machine = Machine(monkeypatch)
        config = MeasurementConfig(warmup_ms=1, min_repeats=60, max_repeats=60)

        def function(name):
            def call():
                machine.calls.append(name)
                # From about the middle of the session.
                machine.now += 1e6 * (factor if len(machine.calls) > 100 else 1.0)

            return call

        return measure_interleaved([function("a"), function("b")], config)[0]

    steady, slow = slowing(1.0), slowing(1.1)
    assert steady.drift == pytest.approx(1.0)
    assert not steady.throttled
    assert slow.drift == pytest.approx(1.1)
    assert slow.throttled


def test_a_clock_that_slows_down_shows_in_the_reference_loop(monkeypatch):
    machine = Machine(monkeypatch)
    loops = iter(range(1000))
    monkeypatch.setattr(measurement, "_reference_ms", lambda: 0.02 * (1 + next(loops) / 100))
    config = MeasurementConfig(min_repeats=30, max_repeats=30)
    found = measure_interleaved([machine.function("a", 1000)], config)[0]
    # Medians of rounds 20 to 29 and 0 to 9.
    assert found.reference_drift == pytest.approx(1.245 / 1.045)
    assert found.drift == pytest.approx(1.0)
    assert found.throttled
