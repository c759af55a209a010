"""Child processes for everything that can crash: code generation, and running what it made.

A `Worker` is a child that answers requests one at a time, as lines of JSON over pipes; large data
goes through files. A request that crashes the child or takes too long is a typed error, and the
next request starts a new child. TVM's import is paid once per child.

Children never outlive their parent: the kernel kills them when the thread that started them ends
(PR_SET_PDEATHSIG), and they leave by themselves when their input closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from compilers.errors import ChildCrashError, ChildTimeoutError, CompilerError

Role = Literal["compiler", "kernels", "runtime", "rpc", "peer", "cuda"]
_COMPILING: tuple[Role, ...] = ("compiler", "kernels", "cuda")
_ROOT = Path(__file__).resolve().parent.parent
_TAIL = 1500
_NOISE = "Warning: Scope "


class ChildBug(RuntimeError):  # noqa: N818 - what is wrong is the program
    """A child met an error that nobody foresaw; the message ends with its traceback.

    No `NetcarveError`: it is not the user's mistake.
    """


class Worker:
    """A child process, started by the first request and replaced after a crash or timeout.

    Not for use by several threads at once; requests queue on a lock. A child belongs to the
    thread that started it and ends with that thread.

    Args:
        role: `compiler` imports torch and all of TVM; `kernels` only TVM; `runtime` only numpy and
            TVM's runtime, and `rpc` the same, to have a server run binaries; `peer` the runtimes to
            compare with; `cuda` torch, all of TVM and its CUDA runtime.
        error: Raised when a request fails for a reason that has no class of its own.
        cpus: Processors that the child may use; all of the parent's when None.
        threads: Threads of TVM's pool, on which kernels divide their work.
    """

    def __init__(
        self,
        role: Role,
        error: type[CompilerError],
        cpus: tuple[int, ...] | None = None,
        threads: int = 1,
    ) -> None:
        self.role = role
        self.error = error
        self.cpus = cpus
        self.threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the running child, if there is one."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive and self._process is not None else None

    def request(self, command: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """Send one request and wait for its answer.

        Args:
            command: Name of a command of `compilers.worker`.
            arguments: Its arguments, JSON values.
            timeout: Seconds until the child is killed.

        Raises:
            CompilerError: The class that the child reported, or the one given at construction.
            ChildCrashError: The child died; the message has the signal and the end of stderr.
            ChildTimeoutError: The child was stopped.
            ChildBug: Any other exception in the child.
        """
        with self._lock:
            if self.pid is None:
                self._start()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            line = json.dumps({"command": command, "arguments": dict(arguments)}).encode() + b"\n"
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                raise self._crashed(command) from None
            try:
                answer = json.loads(self._read_line(command, timeout))
            except BaseException:
                # An interrupted request leaves an answer in the pipe that nobody waits for.
                self._kill()
                raise
        if "bug" in answer:
            raise ChildBug(f"{command} failed in its child process:\n{answer['bug']}")
        if "error" in answer:
            raise _error_class(answer["error"], self.error)(answer["message"])
        return answer["result"]

    def close(self) -> None:
        """End the child. A later request starts a new one."""
        self._kill()

    def _start(self) -> None:
        self._kill()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TVM_NUM_THREADS": str(self.threads),
            "TVM_BIND_THREADS": "0",
            "TVM_USE_RUNTIME_LIB": "0" if self.role in _COMPILING else "1",
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, inherited)]),
        }
        options = {
            "role": self.role,
            "parent": os.getpid(),
            "cpus": self.cpus,
            "threads": self.threads,
        }
        self._process = subprocess.Popen(
            # -P: a folder `compilers` where the user happens to stand is not this package.
            [sys.executable, "-P", "-m", "compilers.worker", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )

    def _read_line(self, command: str, timeout: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout
        deadline = time.monotonic() + timeout
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    raise ChildTimeoutError(
                        f"{command} took longer than {timeout:g} s and was stopped"
                    )
                chunk = os.read(pipe.fileno(), 1 << 16)
                if not chunk:
                    raise self._crashed(command)
                data += chunk
        return data

    def _crashed(self, command: str) -> ChildCrashError:
        assert self._process is not None
        status = self._process.wait()
        how = f"status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = f"signal {signal.Signals(-status).name}"
        tail = self._tail()
        self._kill()
        said = f": {tail}" if tail else ""
        return ChildCrashError(
            f"{command} crashed its child process ({how}){said}", -status if status < 0 else None
        )

    def _tail(self) -> str:
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 20 * _TAIL))
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if _NOISE not in line)[-_TAIL:].strip()

    def _kill(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


def _error_class(name: str, default: type[CompilerError]) -> type[CompilerError]:
    import compilers.errors

    found = getattr(compilers.errors, name, default)
    return found if isinstance(found, type) and issubclass(found, CompilerError) else default
