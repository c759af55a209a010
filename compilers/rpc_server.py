"""A TVM RPC server: whoever connects has this machine run what they send.

TVM serves one session at a time, each in a process of its own. Around that, this server

- outlives a session that crashes, which ends `tvm.rpc.Server` for good;
- takes its sessions along when it is killed;
- restricts sessions to as many processors as threads, and tells which processor that is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from compilers.errors import DeviceError
from compilers.host import processor_name
from compilers.rpc_session import HOST_FUNCTION
from compilers.targets import host_cpu_flags
from compilers.worker import die_with_parent

_WAITING = 16


def serve(
    host: str,
    port: int,
    key: str = "",
    tracker: tuple[str, int] | None = None,
    threads: int = 1,
    ready: Callable[[str, bool], None] = lambda _address, _exposed: None,
) -> NoReturn:
    """Serve until interrupted. This process becomes the server: it gives up all processors but
    the last `threads`, where interrupts and daemons disturb least, and loads TVM's runtime only.

    Args:
        host: Address to listen at. Nothing but the network keeps anybody out.
        port: Port to listen at; 0 for a free one.
        key: Name under which clients, or a tracker, find it; no secret.
        tracker: Address of a tracker to register at.
        threads: Most threads of one inference.
        ready: Told `HOST:PORT`, and whether other machines can connect, once it listens.

    Raises:
        DeviceError: It cannot listen there, or there are fewer processors.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cpus):
        raise DeviceError(f"threads is {threads}; allowed: 1 to {len(cpus)}")
    if tracker is not None and not key:
        raise DeviceError("a tracker finds servers by their key; give one")
    with _listen(host, port) as listener:
        os.sched_setaffinity(0, cpus[-threads:])
        # Before TVM is imported. It would move its threads to processors of its own choice.
        os.environ.update(
            TVM_USE_RUNTIME_LIB="1", TVM_NUM_THREADS=str(threads), TVM_BIND_THREADS="0"
        )
        # TVM's Python package imports torch where it finds it; nothing here needs it.
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
        import tvm
        from tvm.rpc import server

        server.logger.setLevel(logging.WARNING)
        tvm.register_global_func(HOST_FUNCTION, _describe)
        # A session inherits its connection and what was registered.
        multiprocessing.set_start_method("fork", force=True)
        os.register_at_fork(after_in_child=partial(_become_session, os.getpid()))
        address, bound = listener.getsockname()[:2]
        ready(f"{address}:{bound}", exposed(address))
        home = Path.cwd()
        try:
            while True:
                try:
                    server._listen_loop(listener, bound, key, tracker, None, None)
                except Exception as error:
                    # Whatever one session did, the next one starts afresh.
                    print(f"error: {error}; still serving", file=sys.stderr, flush=True)
                _end_sessions()
                os.chdir(home)
        finally:
            _end_sessions()


def exposed(address: str) -> bool:
    """Whether other machines can connect to a server that listens at an IP address."""
    return not ipaddress.ip_address(address).is_loopback


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` as (host, port).

    Raises:
        DeviceError: It is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise DeviceError(f"address {text!r}; allowed: HOST:PORT with a port from 1 to 65535")
    return host, int(port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_WAITING)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeviceError(f"cannot listen at {host}:{port}: {reason}") from error


def _describe() -> str:
    return json.dumps({"processor": processor_name(), "flags": sorted(host_cpu_flags())})


def _end_sessions() -> None:
    for session in multiprocessing.active_children():
        session.kill()


def _become_session(server: int) -> None:
    """What happens first in the process of a session."""
    die_with_parent(server)
    # TVM writes a line per constant of a library; errors go to the client.
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
