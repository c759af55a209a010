"""The child process of `isolation.Worker`: reads requests, answers each with one line of JSON.

Run as `python -m compilers.worker OPTIONS`. The answers go to the original standard output, which
is then closed to everything else, because TVM and linkers may print.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

_PR_SET_PDEATHSIG = 1
_LONGEST = 8000
# What the machine, not the program, can be blamed for.
_MACHINE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.EIO,
}  # fmt: skip

Command = Callable[[Mapping[str, Any]], Any]


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    Args:
        parent: Process id of the parent; if it is gone already, this process exits.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _commands(role: str, threads: int) -> dict[str, Command]:
    if role == "compiler":
        from compilers import compiler_commands

        return dict(compiler_commands.COMMANDS)
    if role == "peer":
        from compilers import peer_commands

        return dict(peer_commands.COMMANDS)
    if role == "cuda":
        from compilers import cuda_commands

        return dict(cuda_commands.COMMANDS)
    # TVM's Python package imports torch where it finds it; nothing here needs it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    if role == "rpc":
        from compilers import rpc_commands

        return dict(rpc_commands.COMMANDS)
    if role == "kernels":
        from compilers import kernel_commands

        return dict(kernel_commands.COMMANDS)
    from compilers import runtime_commands
    from compilers.runtime import use_threads

    use_threads(threads)
    return dict(runtime_commands.COMMANDS)


def main() -> None:
    """Serve requests until standard input closes."""
    options = json.loads(sys.argv[1])
    die_with_parent(options["parent"])
    if options["cpus"]:
        os.sched_setaffinity(0, options["cpus"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands: dict[str, Command] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            commands = commands or _commands(options["role"], options["threads"])
            answer = {"result": commands[request["command"]](request["arguments"])}
        except Exception as error:
            answer = _failure(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _failure(error: Exception) -> dict[str, str]:
    from spaces.errors import NetcarveError

    foreseen = isinstance(error, NetcarveError) or type(error).__name__ == "BundleRuntimeError"
    circumstance = isinstance(error, (ImportError, MemoryError))
    circumstance = circumstance or getattr(error, "errno", None) in _MACHINE
    if foreseen or circumstance:
        message = str(error) if foreseen else f"{type(error).__name__}: {error}"
        return {"error": type(error).__name__, "message": message}
    return {"bug": "".join(traceback.format_exception(error))[-_LONGEST:]}


if __name__ == "__main__":
    main()
