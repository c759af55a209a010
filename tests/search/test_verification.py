"""What the verifier stores, and what it refuses, around workers and devices that answer at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.errors import LeaseLostError, VerificationError
from search.loop import _Loop
from search.models import Purpose
from search.results import at_bits
from search.verification import SESSION, _sessions
from tests.search.stand_in import make_stand


@pytest.fixture
def stand(tmp_path, tiny_job):
    stand = make_stand(tmp_path, tiny_job, "cpu")
    yield stand
    stand.store.close()


def verify(stand, configs, together=()):
    extra = {config.key: {"generation": 1} for config in configs}
    stand.verifier.evaluate(configs, "test")
    stand.verifier.measure("cpu", configs, Purpose.VERIFY, "test", extra, together)


def measured(stand):
    return {row.config_key for row in stand.store.results.measurements(stand.job.id)}


def test_a_later_batch_of_which_nothing_can_be_measured_stops_the_job(stand):
    first, second = stand.configs(3), stand.configs(6)[3:]
    verify(stand, first)
    stand.devices["cpu"].broken = {config.key for config in second}
    with pytest.raises(VerificationError, match=r"every measurement on cpu failed \(3\).*crashed"):
        verify(stand, second)
    assert measured(stand) == {config.key for config in first}
    stand.devices["cpu"].broken = set()
    verify(stand, second)
    assert measured(stand) == {config.key for config in [*first, *second]}


def test_binaries_that_crash_cost_their_neighbours_nothing(stand):
    configs = stand.configs(6)
    verify(stand, configs[:1])
    stand.devices["cpu"].broken = {config.key for config in configs[1:5]}
    verify(stand, configs[1:])
    # Two failures alone are no proof of a common cause.
    verify(stand, configs[1:3])
    assert measured(stand) == {configs[0].key, configs[5].key}


def test_evaluation_and_compilation_share_the_host_and_a_measurement_owns_it(stand):
    configs = stand.configs(2)
    verify(stand, configs)
    assert stand.executor.held == [
        [("shared", "accuracy")],
        [("shared", "accuracy")],
        [("shared", "compilation")],
        [("shared", "compilation")],
    ]
    assert stand.devices["cpu"].held == [[("exclusive", "measurement")]]


def test_evaluations_say_on_which_split_they_were_made(stand):
    verify(stand, stand.configs(2))
    splits = {task.split for task in stand.executor.done if hasattr(task, "split")}
    stored = {row.split for row in stand.store.results.evaluations(stand.job.id)}
    assert splits == stored == {"selection"}


def test_no_session_splits_a_group(stand):
    configs = stand.configs(2 * SESSION + 3)
    pairs = [configs[i : i + 2] for i in (1, 5, 7, 9, 15)]
    sessions = _sessions(configs, pairs)
    flat = [[config for group in session for config in group] for session in sessions]
    assert all(len(session) <= SESSION for session in flat)
    assert sorted(c.key for session in flat for c in session) == sorted(c.key for c in configs)
    for first, second in pairs:
        (session,) = [session for session in flat if first in session]
        assert session.index(second) == session.index(first) + 1
    # Of a pair of which one was measured before, the other is measured.
    assert _sessions(configs[:1], [configs[:2]]) == [[configs[:1]]]


@pytest.mark.parametrize(
    ("ratios", "sessions", "kept"),
    [([0.98], 1, 0.98), ([1.2, 0.99], 2, 0.99), ([1.2, 0.9, 0.95, 1.0], 3, 0.95)],
)
def test_a_session_that_disagrees_with_itself_is_repeated(stand, ratios, sessions, kept):
    device = stand.devices["cpu"]
    device.aa_ratios = list(ratios)
    verify(stand, stand.configs(2))
    assert len(device.sessions) == sessions
    rows = stand.store.results.measurements(stand.job.id)
    assert [row.measurement["aa_ratio"] for row in rows] == [kept, kept]


def test_a_crash_in_a_session_leaves_the_pairs_together(stand):
    configs = stand.configs(5)
    stand.devices["cpu"].broken = {configs[4].key}
    verify(stand, configs, together=[configs[:2], configs[2:4]])
    keys = [config.key for config in configs]
    assert stand.devices["cpu"].sessions == [keys[:2], keys[2:4]]


def test_precision_twins_are_measured_in_one_session_at_the_end(stand):
    def at(bits, config):
        return stand.space.config(at_bits(stand.space, config, bits))

    bases = list({at(8, config): config for config in stand.configs(12)}.values())[: SESSION - 1]
    # All int8 binaries first: sessions by order of verification would split every pair.
    configs = [at(8, base) for base in bases] + [at(32, base) for base in bases]
    assert len(set(configs)) == 2 * len(bases) > SESSION
    verify(stand, configs)
    stand.devices["cpu"].sessions.clear()
    with stand.store.jobs.claim(stand.job.id) as lease:
        _Loop(stand.session, lease)._measure_again("cpu")
    sessions = stand.devices["cpu"].sessions
    for base in bases:
        (session,) = [s for s in sessions if at(8, base).key in s]
        assert at(32, base).key in session
    final = stand.store.results.measurements(stand.job.id, purpose=Purpose.FINAL)
    assert {row.config_key for row in final} == {config.key for config in configs}


class _LostAfter:
    """A check that passes a number of times."""

    def __init__(self, times):
        self.times = times

    def __call__(self):
        self.times -= 1
        if self.times < 0:
            raise LeaseLostError("lost")


def test_a_lost_lease_ends_the_evaluations(stand):
    stand.verifier = replace(stand.verifier, check=_LostAfter(2))
    with pytest.raises(LeaseLostError):
        stand.verifier.evaluate(stand.configs(4), "test")
    assert len(stand.store.results.evaluations(stand.job.id)) == 2


@pytest.mark.parametrize(("passes", "timed", "stored"), [(0, 0, 0), (1, 1, 0), (2, 1, SESSION)])
def test_a_lost_lease_ends_the_measurements(stand, passes, timed, stored):
    configs = stand.configs(2 * SESSION)
    stand.verifier.evaluate(configs, "test")
    stand.verifier.build("cpu", configs, "test")
    stand.verifier = replace(stand.verifier, check=_LostAfter(passes))
    with pytest.raises(LeaseLostError):
        verify(stand, configs)
    assert len(stand.devices["cpu"].sessions) == timed
    assert len(measured(stand)) == stored
