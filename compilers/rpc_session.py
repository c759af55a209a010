"""Sessions on a TVM RPC server, as the child process sees them that talks to it.

A server serves one session at a time, in a process and a folder that end with it. So a session is
also the turn on that machine: it is kept while requests follow each other, which uploads every
library once, and given up soon after, so that another device or user gets a turn.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import DeviceConnectionError, DeviceError, MeasurementError
from spaces.files import sha256_file

IDLE_SECONDS = 5.0
"""How long a session is kept that nobody uses."""

HOST_FUNCTION = "netcarve.rpc_host"
"""What netcarve's own server tells about its machine; other TVM servers do not have it."""

_DIAGNOSIS_SECONDS = 5.0
# TVM's affinity mode: the fastest cores, as many as threads.
_FAST_CORES = 1


@dataclass(frozen=True, slots=True)
class Server:
    """A TVM RPC server, or the tracker that knows it.

    Attributes:
        host: Where it listens.
        port: Where it listens.
        key: Name under which it serves; no secret.
        tracker: Whether a tracker listens there, which picks a free server of that key.
        threads: Threads of one inference.
        session_seconds: After so long the server ends a session, whatever it is doing.
    """

    host: str
    port: int
    key: str
    tracker: bool
    threads: int
    session_seconds: float

    def __str__(self) -> str:
        name = f" with key {self.key!r}" if self.key else ""
        role = "the tracker" if self.tracker else "the server"
        return f"{role} at {self.host}:{self.port}{name}"


class Session:
    """An open session.

    Attributes:
        device: The server's CPU, for `tvm.runtime.tensor`.
        host: What the server tells about its machine: `processor`, `flags`; None when it does not.

    Raises:
        DeviceConnectionError: There is no such server.
        DeviceError: It does not give the threads.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._remote = _connect(server)
        # A request may take half of the session's time; a session older than that is not reused.
        self._reusable_until = time.monotonic() + server.session_seconds / 2
        self._uploaded: set[str] = set()
        self.device: Any = self._remote.cpu(0)
        try:
            with _translated(server):
                self._set_threads()
                self.host = self._ask_host()
        except BaseException:
            self.close()
            raise

    def serves(self, server: Server) -> bool:
        """Whether a request for `server` may still use this session."""
        return server == self.server and time.monotonic() < self._reusable_until

    def load(self, library: Path) -> Any:
        """The library as a module on the server; uploaded unless this session has its content.

        Raises:
            MeasurementError: The file cannot be read.
        """
        try:
            name = f"{sha256_file(library)}.so"
        except OSError as error:
            raise MeasurementError(f"{library}: {error.strerror}") from error
        if name not in self._uploaded:
            self._remote.upload(str(library), name)
            self._uploaded.add(name)
        return self._remote.load_module(name)

    def tensor(self, array: NDArray[Any]) -> Any:
        """The array in the server's memory."""
        import tvm

        return tvm.runtime.tensor(np.ascontiguousarray(array), self.device)

    def close(self) -> None:
        """End the session; the server removes what was uploaded."""
        with contextlib.suppress(RuntimeError, OSError):
            self._remote.get_function("CloseRPCConnection")()

    def _set_threads(self) -> None:
        wanted = self.server.threads
        self._remote.get_function("runtime.config_threadpool")(_FAST_CORES, wanted)
        given = int(self._remote.get_function("runtime.NumThreads")())
        if given != wanted:
            raise DeviceError(
                f"{self.server} gives {given} threads, not {wanted}; "
                f"start it with: netcarve device serve --threads {wanted}"
            )

    def _ask_host(self) -> dict[str, Any] | None:
        try:
            ask = self._remote.get_function(HOST_FUNCTION)
        except AttributeError:
            return None
        host: dict[str, Any] = json.loads(ask())
        return host


class SessionKeeper:
    """Holds the one open session of this process."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self.idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def session(self, server: Server) -> Iterator[Session]:
        """The open session on `server`, or a new one. An error inside ends it.

        Raises:
            DeviceConnectionError: The server cannot be reached, or went away.
            DeviceError: It does not give the threads.
            MeasurementError: What was asked of the server failed there.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._session is not None and not self._session.serves(server):
                self._end()
            if self._session is None:
                self._session = Session(server)
            try:
                with _translated(server):
                    yield self._session
            except BaseException:
                self._end()
                raise
            self._timer = threading.Timer(self.idle_seconds, self._idle)
            self._timer.daemon = True
            self._timer.start()

    def _idle(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _connect(server: Server) -> Any:
    from tvm import rpc

    try:
        if not server.tracker:
            return rpc.connect(server.host, server.port, server.key, server.session_seconds)
        # TVM would go on trying for a minute.
        socket.create_connection((server.host, server.port)).close()
        tracker = rpc.connect_tracker(server.host, server.port)
        return tracker.request(server.key, session_timeout=server.session_seconds, max_retry=1)
    except (RuntimeError, OSError) as error:
        raise DeviceConnectionError(
            f"no session on {server}: {_diagnosis(server) or _last_line(error)}; start a server "
            f"there: netcarve device serve"
        ) from error


def _diagnosis(server: Server) -> str | None:
    """Why nobody can connect, in the system's words, which TVM does not hand on."""
    try:
        socket.create_connection((server.host, server.port), _DIAGNOSIS_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextlib.contextmanager
def _translated(server: Server) -> Iterator[None]:
    """TVM's errors as netcarve's."""
    from tvm.error import InternalError, RPCError, RPCSessionTimeoutError

    try:
        yield
    except RPCSessionTimeoutError as error:
        raise DeviceConnectionError(
            f"{server} ended the session after {server.session_seconds:g} s"
        ) from error
    except RPCError as error:
        raise MeasurementError(f"failed on {server}: {_last_line(error)}") from error
    except (InternalError, ConnectionError) as error:
        raise DeviceConnectionError(
            f"{server} closed the connection: it was stopped, or what it ran crashed there "
            f"({_last_line(error)})"
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
