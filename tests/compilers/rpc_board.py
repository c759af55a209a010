"""A TVM RPC server as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CLI = "from cli.main import main; main()"


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Board:
    """`netcarve device serve` on one port, to be killed and started again.

    Attributes:
        port: Where it listens.
        folder: Sessions keep their files below it.
        said: The first line of its output.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.start()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLI, "device", "serve", "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.folder)},
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()
        assert self.said, "the server did not start"

    def kill(self) -> None:
        """Kill the server alone, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def sessions(self) -> list[int]:
        """Process ids of its sessions."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if running(int(child))]

    def crash_session(self) -> None:
        """End the session as a binary does that accesses memory that is not its own."""
        (session,) = self.sessions()
        os.kill(session, signal.SIGSEGV)

    def uploaded(self) -> dict[str, int]:
        """Path -> modification time in ns of every library that sessions hold."""
        return {str(p): p.stat().st_mtime_ns for p in self.folder.glob("*/*.so")}


def running(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
