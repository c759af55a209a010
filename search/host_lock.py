"""The host lock: a measurement owns its host.

Heavy work (training, compiling, evaluating) holds the lock shared; a measurement holds it
exclusively. The kernel keeps it (`flock`), so it is free as soon as its process is dead, however it
died. A second lock, the gate, is passed on the way in and kept by a measurement that waits, so
that heavy work that arrives later cannot overtake it.

Hold it in the process that computes, never around waiting for another process that takes it:
a measurement waiting between the two would block both.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.errors import HostLockError, HostLockTimeoutError
from search.home import runtime_folder
from search.processes import ProcessId, is_gone, this_process
from search.progress import Progress
from spaces.files import atomic_write_text

Mode = Literal["shared", "exclusive"]
_POLL_S = 0.02
_REPORT_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds the lock."""

    process: ProcessId
    mode: Mode
    purpose: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        held = time.time() - self.since
        return f"process {self.process.pid} ({self.purpose}, {self.mode}, for {held:.0f} s)"


# Called while waiting: the holders, and the seconds waited so far.
OnWait = Callable[[tuple[Holder, ...], float], None]


def announce(progress: Progress) -> OnWait:
    """Tell `progress` for whom the lock keeps work waiting."""

    def waiting(holders: tuple[Holder, ...], _seconds: float) -> None:
        names = ", ".join(map(str, holders)) or "another process"
        progress(f"waiting for {names}", 0, 0)

    return waiting


class _HeldModes(threading.local):
    """What the calling thread holds, by folder: two objects of one folder are one lock."""

    def __init__(self) -> None:
        self.by_folder: dict[Path, Mode] = {}


_HELD = _HeldModes()


class HostLock:
    """One reader-writer lock per user and host.

    Args:
        folder: Where its files lie; the user's runtime folder of this host by default. Everyone
            who is to be kept apart must name the same folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder or runtime_folder()).resolve() / "host-lock"
        (self._folder / "holders").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def shared(
        self, purpose: str, *, timeout: float | None = None, on_wait: OnWait | None = None
    ) -> Iterator[None]:
        """Hold the lock for heavy work that may run beside other heavy work.

        Inside `exclusive` or `shared` of the same thread it is already held.

        Args:
            purpose: What the work is, for others who wait.
            timeout: Seconds to wait at most; None waits for ever.
            on_wait: Told every few seconds who holds the lock.

        Raises:
            HostLockTimeoutError: not free in time.
        """
        if self._mode() is not None:
            yield
            return
        with self._hold("shared", purpose, timeout, on_wait):
            yield

    @contextmanager
    def exclusive(
        self, purpose: str, *, timeout: float | None = None, on_wait: OnWait | None = None
    ) -> Iterator[None]:
        """Hold the lock alone, for a measurement.

        Args, Raises: as `shared`.

        Raises:
            HostLockError: this thread holds it shared: it would wait for itself.
        """
        if self._mode() == "exclusive":
            yield
            return
        if self._mode() == "shared":
            raise HostLockError(
                f"{purpose}: this thread holds the host lock shared; leave it first."
            )
        with self._hold("exclusive", purpose, timeout, on_wait):
            yield

    def holders(self) -> tuple[Holder, ...]:
        """Who holds the lock now. A holder may miss for an instant around taking it."""
        found = []
        for path in sorted((self._folder / "holders").glob("*.json")):
            try:
                data = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            process = ProcessId(data["host"], data["pid"], data["started"])
            if is_gone(process):
                path.unlink(missing_ok=True)
            else:
                found.append(Holder(process, data["mode"], data["purpose"], data["since"]))
        return tuple(found)

    def _mode(self) -> Mode | None:
        return _HELD.by_folder.get(self._folder)

    @contextmanager
    def _hold(
        self, mode: Mode, purpose: str, timeout: float | None, on_wait: OnWait | None
    ) -> Iterator[None]:
        waiting = _Waiting(self, purpose, timeout, on_wait)
        with _open(self._folder / "gate") as gate, _open(self._folder / "lock") as lock:
            waiting.take(gate, fcntl.LOCK_EX)
            waiting.take(lock, fcntl.LOCK_EX if mode == "exclusive" else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            note = self._write_holder(mode, purpose)
            _HELD.by_folder[self._folder] = mode
            try:
                yield
            finally:
                del _HELD.by_folder[self._folder]
                note.unlink(missing_ok=True)
                # Explicitly: a forked child that shares the open file must not keep the lock.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _write_holder(self, mode: Mode, purpose: str) -> Path:
        me = this_process()
        path = self._folder / "holders" / f"{me.pid}-{threading.get_ident()}.json"
        data = {"host": me.host, "pid": me.pid, "started": me.started}
        data |= {"mode": mode, "purpose": purpose, "since": time.time()}
        atomic_write_text(path, json.dumps(data))
        return path


@contextmanager
def _open(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


class _Waiting:
    """One attempt to take the lock: its deadline, and when it last reported."""

    def __init__(
        self, lock: HostLock, purpose: str, timeout: float | None, on_wait: OnWait | None
    ) -> None:
        self._lock, self._purpose, self._on_wait = lock, purpose, on_wait
        self._start = time.monotonic()
        self._timeout = timeout
        self._next_report = self._start + 1.0

    def take(self, handle: int, operation: int) -> None:
        # Polled, not blocked in the kernel: a signal, a timeout and a report must get through.
        while True:
            try:
                fcntl.flock(handle, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait()
            else:
                return

    def _wait(self) -> None:
        now = time.monotonic()
        waited = now - self._start
        if self._timeout is not None and waited >= self._timeout:
            names = ", ".join(map(str, self._lock.holders())) or "another process"
            raise HostLockTimeoutError(
                f"{self._purpose}: the host was not free within {self._timeout:g} s; "
                f"held by {names}."
            )
        if self._on_wait is not None and now >= self._next_report:
            self._next_report = now + _REPORT_EVERY_S
            self._on_wait(self._lock.holders(), waited)
        time.sleep(_POLL_S)
