"""Turns of processes, as benchmarks on several threads take them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPUS = sorted(os.sched_getaffinity(0))

# What a player does, with a call that needs no network.
CHILD = f"""
import sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import _turns
_turns.prepare = lambda calls, threads: [lambda: time.sleep(0.002)]
_turns._main('{{"runtime": "compiled", "file": "f", "input": "x"}}', "1")
"""
BROKEN = "import sys; sys.exit('cannot load it')"


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _turns

    return _turns


@pytest.fixture
def player(turns, monkeypatch, tmp_path):
    started = []

    def start(code):
        script = tmp_path / "child.py"
        script.write_text(code)
        monkeypatch.setattr(turns, "__file__", str(script))
        started.append(turns._Player(turns.Call("compiled", "f", "x"), 1))
        return started[-1]

    yield start
    for one in started:
        one.close()


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def wait_until_stopped(pid):
    end = time.monotonic() + 5
    while state(pid) != "T":
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.alone
def test_a_process_runs_only_in_its_turns(player):
    one = player(CHILD)
    for _ in range(2):
        wait_until_stopped(one._process.pid)
        ms, waited = one.turn(0.03)
        assert 2 <= ms < 20
        assert 0 <= waited < 1
    wait_until_stopped(one._process.pid)


def test_what_a_failed_process_said_is_reported(turns, player):
    with pytest.raises(turns.ChildError, match="status 1: cannot load it"):
        player(BROKEN)


@pytest.mark.alone
def test_waiting_for_a_busy_processor_is_noticed(turns):
    """Two loops on one processor: each waits half of the time."""
    os.sched_setaffinity(0, CPUS[-1:])
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.1)
        waited = turns.make_turn(lambda: sum(range(1000)), 0.3)[1]
    finally:
        loop.kill()
        loop.wait()
        os.sched_setaffinity(0, CPUS)
    assert waited > turns.LARGEST_WAIT


def test_disturbed_turns_are_taken_again(turns, monkeypatch):
    """The first two attempts of each turn are disturbed; those of one player always."""
    made = []

    class Player:
        def __init__(self, call, threads):
            self.ms, self.turns, self.never = 1.0 + len(made), 0, call.file == "never"
            made.append(self)

        def turn(self, seconds):
            self.turns += 1
            quiet = self.turns % 3 == 0 and not self.never
            return (self.ms, 0.0) if quiet else (100.0, 0.5)

        def close(self):
            self.ms = None

    monkeypatch.setattr(turns, "_Player", Player)
    calls = [turns.Call("compiled", name, "x") for name in ("ours", "never")]
    found = turns.measure_in_turns(calls, 2, rounds=4)
    assert found == turns.Turns([1.0, 100.0], 3.0, 1 / 3)
    assert [one.turns for one in made] == [12, 4 * turns.ATTEMPTS, 12]
    assert all(one.ms is None for one in made)
