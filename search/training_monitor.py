"""What a job and the workers of its training tell each other: progress one way, "stop" the other.

Imports nothing heavy, since the actor is a process of its own.
"""

from __future__ import annotations

import time
from typing import Any

_EVERY_S = 0.2


class TrainingMonitor:
    """A Ray actor between the process that runs a job and the workers that train its supernet."""

    def __init__(self) -> None:
        self._latest: tuple[str, int, int] | None = None
        self._is_stopping = False
        self._failure: str | None = None
        self._stopped: str | None = None

    def look(self, stop: bool) -> tuple[str, int, int] | None:
        """For the job: the latest progress. `stop` asks the workers to stop, once for all."""
        self._is_stopping = self._is_stopping or stop
        return self._latest

    def outcome(self) -> tuple[str | None, str | None]:
        """Why the training failed, and where it stopped because it was asked to."""
        return self._failure, self._stopped

    def report(self, phase: str, done: int, total: int) -> bool:
        """For rank 0: take its progress in; whether it shall stop."""
        self._latest = (phase, done, total)
        return self._is_stopping

    def failed(self, message: str) -> None:
        """For any worker: note an error that another attempt would meet again."""
        self._failure = self._failure or message

    def stopped(self, message: str) -> None:
        """For any worker: note that the training stopped."""
        self._stopped = message


class MonitorLine:
    """Rank 0's line to the monitor: a call now and then, not one in every step.

    Args:
        monitor: Handle of a `TrainingMonitor`.

    Attributes:
        is_stopping: Whether the training shall stop, as far as is known here.
    """

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._next = 0.0
        self.is_stopping = False

    def report(self, phase: str, done: int, total: int) -> None:
        """Tell how far the training is, and hear whether it shall stop."""
        import ray

        if time.monotonic() >= self._next or done == total:
            self.is_stopping = ray.get(self._monitor.report.remote(phase, done, total))
            self._next = time.monotonic() + _EVERY_S
