"""Timing runtimes on several threads, each in a process of its own, that take turns.

Threads that wait for work spin, so two runtimes at once take the processors from each other, and an
inference on several threads waits for the slowest of them: whatever else runs counts many times.
Therefore:

- Only the process whose turn it is runs; the others are stopped (SIGSTOP).
- Every thread is bound to a processor of its own, in all runtimes.
- Turns are short and their order is reversed every round: a slow stretch of the machine, which is
  often another guest of a virtual machine's host, falls on all.
- A turn in which the threads had to wait for a processor, because another process ran there, is
  taken again. The kernel counts that time (`schedstat`).

Run as a script by `measure_in_turns`: makes a turn per line of standard input.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from _peers import Call, ChildError, child_environment, last_words, prepare, waiting

LARGEST_WAIT = 0.05
"""Time that threads may wait for a processor, as a share of a turn's."""

ATTEMPTS = 6
"""Most attempts at a turn without another process."""

_WARM_UP = 0.25
_LEAST_CALLS = 5
_START_S, _TURN_S = 300.0, 60.0
"""Longest that a process may take to get ready, and to make a turn."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What the turns of several calls took.

    Attributes:
        medians: Milliseconds of every call: median over its turns of the median of each turn.
        aa_ratio: The same of a second process of the first call, over that of the first.
        disturbed: Turns, as a share of all that count, in which another process disturbed at every
            attempt.
    """

    medians: list[float]
    aa_ratio: float
    disturbed: float


def measure_in_turns(
    calls: Sequence[Call], threads: int, rounds: int, turn_s: float = 0.2
) -> Turns:
    """Time `calls` in turns, each on `threads` threads and as many processors.

    Args:
        calls: What to time, each in a process of its own; the first in two.
        threads: Threads of one inference.
        rounds: Turns of every process.
        turn_s: Seconds of a turn.

    Raises:
        ChildError: A process failed or took too long.
    """
    from search.host_lock import HostLock

    with ExitStack() as stack:
        players = []
        for call in (*calls, calls[0]):
            players.append(_Player(call, threads))
            stack.callback(players[-1].close)
        stack.enter_context(HostLock().exclusive("a benchmark", on_wait=waiting))
        taken: list[list[float]] = [[] for _ in players]
        disturbed = 0
        order = list(range(len(players)))
        for _ in range(rounds):
            for index in order:
                for _ in range(ATTEMPTS):
                    ms, waited = players[index].turn(turn_s)
                    if waited <= LARGEST_WAIT:
                        break
                else:
                    disturbed += 1
                taken[index].append(ms)
            order.reverse()
    *medians, again = map(median, taken)
    return Turns(medians, again / medians[0], disturbed / (rounds * len(players)))


class _Player:
    """A process that makes one call, stopped between its turns."""

    def __init__(self, call: Call, threads: int) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, json.dumps(asdict(call)), str(threads)],
            env=child_environment(threads, runtime_only=True),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        try:
            self._answer(_START_S)
        except BaseException:
            self.close()
            raise
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> tuple[float, float]:
        """Median milliseconds of one turn, and the share of it that threads waited."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(f"{seconds}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        ms, waited = self._answer(_TURN_S)
        self._process.send_signal(signal.SIGSTOP)
        return ms, waited

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            assert stream is not None
            stream.close()

    def _answer(self, timeout: float) -> Any:
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            raise ChildError(f"took longer than {timeout:g} s")
        line = out.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> ChildError:
        return ChildError(f"status {self._process.wait()}: {last_words(self._said)}")


def make_turn(function: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Call `function` for so long; median milliseconds, and the share that threads waited."""
    end = time.perf_counter() + _WARM_UP * seconds
    while time.perf_counter() < end:
        function()
    samples: list[float] = []
    waited, start = _waited_s(), time.perf_counter()
    while len(samples) < _LEAST_CALLS or time.perf_counter() < start + seconds:
        before = time.perf_counter_ns()
        function()
        samples.append((time.perf_counter_ns() - before) / 1e6)
    return median(samples), (_waited_s() - waited) / (time.perf_counter() - start)


def _waited_s() -> float:
    """Seconds that the threads of this process were ready to run, but did not."""
    tasks = Path("/proc/self/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9


def _main(call: str, threads: str) -> None:
    (function,) = prepare([Call(**json.loads(call))], int(threads))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(make_turn(function, float(line))), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
