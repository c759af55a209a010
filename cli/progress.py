"""Progress of long work, on stderr: bars on a terminal, a line now and then elsewhere.

Lower floors report `progress(phase, done, total)`, from any thread; `total` 0 means unknown.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from search.progress import Progress

Clock = Callable[[], float]
LINE_EVERY_S = 5.0


@dataclass
class Phase:
    """One phase and when it was first heard of; a resumed phase does not begin at 0.

    Attributes:
        name: What is being done.
        began: Clock at the first report, seconds.
        first: Steps that were done at the first report.
        done: Steps done.
        total: Steps in all, 0 when unknown.
    """

    name: str
    began: float
    first: int
    done: int
    total: int

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return 0 < self.total <= self.done

    def remaining_s(self, now: float) -> float | None:
        """Seconds left at the mean pace so far; None while nothing is known."""
        steps = self.done - self.first
        if steps <= 0 or self.total <= 0:
            return None
        return (now - self.began) / steps * max(0, self.total - self.done)


class Phases:
    """The phases reported so far, in the order of their first report."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._phases: dict[str, Phase] = {}

    def update(self, name: str, done: int, total: int) -> tuple[Phase, bool]:
        """Take a report in; the phase, and whether it is a new one.

        A phase that comes again from its start, as in each round of a search, is a new one.
        """
        phase = self._phases.get(name)
        if phase is None or done < phase.done:
            phase = Phase(name, self.clock(), done, done, total)
            self._phases[name] = phase
            return phase, True
        phase.done, phase.total = done, total
        return phase, False


def duration(seconds: float) -> str:
    """A length of time for people: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Lines:
    """Plain lines: one when a phase begins, one every few seconds, one when a long phase ends."""

    def __init__(
        self, stream: TextIO, clock: Clock = time.monotonic, every: float = LINE_EVERY_S
    ) -> None:
        self._stream = stream
        self._phases = Phases(clock)
        self._every = every
        self._last = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Print a line when it is time for one."""
        with self._lock:
            known, is_new = self._phases.update(phase, done, total)
            now = self._phases.clock()
            ended = known.finished and now - known.began >= self._every
            if is_new or ended or now - self._last >= self._every:
                self._last = now
                print(self._line(known, now), file=self._stream, flush=True)

    def _line(self, phase: Phase, now: float) -> str:
        if phase.done == phase.total == 0:
            return phase.name
        text = f"{phase.name}: {phase.done}"
        if phase.total > 0:
            text += f"/{phase.total} ({100 * phase.done // phase.total} %)"
        if phase.finished:
            # A phase first heard of at its end has no duration that is known here.
            return f"{text}, took {duration(now - phase.began)}" if now > phase.began else text
        left = phase.remaining_s(now)
        return text if left is None else f"{text}, about {duration(left)} left"


class Bars:
    """One bar for each phase on a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._phases = Phases()
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Move the phase's bar."""
        with self._lock:
            known, is_new = self._phases.update(phase, done, total)
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=None, left="")
            elif is_new:
                self._bars.reset(self._tasks[phase])
            left = known.remaining_s(self._phases.clock())
            text = "" if left is None or known.finished else f"about {duration(left)} left"
            self._bars.update(
                self._tasks[phase], completed=done, total=total if total > 0 else None, left=text
            )


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """The callback to hand to long work; what it shows ends with the block."""
    if quiet:
        from search.progress import silent

        yield silent
        return
    if not sys.stderr.isatty():
        yield Lines(sys.stderr, every=LINE_EVERY_S)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bars:
        yield Bars(bars)
