"""One local Ray instance: its private folder, and the promise that nothing of it stays behind."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from search import watchdog
from search.errors import ExecutionError
from search.home import runtime_folder

_TOKEN_NAME = "NETCARVE_RAY_SESSION"  # noqa: S105 - the name of an environment variable
# A socket's path has at most 107 bytes, of which Ray's own part below the folder takes 70.
_MAX_PATH = 37
_LOOPBACK = ("127.0.0.1:", "localhost:")
_MIN_OBJECT_STORE = 80 * 2**20


def set_ray_defaults(address: str | None) -> None:
    """Settings that Ray reads when it is imported; a user's own stay.

    Args:
        address: Of the cluster that will be joined; None when Ray will be started on this host.
    """
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Of Ray Train: a worker's end is noticed soon, and nothing runs beside the workers.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Ray prints its own account of a dead worker on standard output, into a command's JSON.
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    }
    if address is None or address.startswith(_LOOPBACK):
        # As on systems where Ray has no clusters: all servers listen on the loopback only.
        defaults["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address is not None:
        # Of 40 s each; by default 20 of them when what listens there is no Ray.
        defaults["RAY_NUM_REDIS_GET_RETRIES"] = "2"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def one_line(error: Exception) -> str:
    """What one of Ray's errors says, as a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


class LocalRay:
    """A Ray instance of this process on this host.

    Start it in the main thread: Linux ends Ray's servers when the *thread* that started them ends.
    """

    def __init__(self, num_cpus: int, object_store_bytes: int, namespace: str) -> None:
        """Start Ray.

        Raises:
            ExecutionError: Ray does not start, or the runtime folder's path is too long for it.
        """
        self._folder, self._lock = _make_folder()
        token = f"{_TOKEN_NAME}={secrets.token_hex(16)}"
        self._watchdog = subprocess.Popen(
            [
                sys.executable,
                *("-I", "-S"),
                str(watchdog.__file__),
                str(self._folder),
                token,
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        try:
            # Only Ray's processes carry the mark, not what this process starts later. Workers
            # import what this process can import, plug-ins next to a script included.
            with _environment(
                {
                    _TOKEN_NAME: token.partition("=")[2],
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                }
            ):
                self._start(num_cpus, object_store_bytes, namespace)
        except BaseException:
            self.close()
            raise

    def _start(self, num_cpus: int, object_store_bytes: int, namespace: str) -> None:
        import ray

        try:
            ray.init(
                num_cpus=num_cpus,
                object_store_memory=max(object_store_bytes, _MIN_OBJECT_STORE),
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                namespace=namespace,
                _temp_dir=str(self._folder),
            )
        except Exception as error:
            # Ray raises Exception itself when one of its servers ends or takes too long.
            raise ExecutionError(
                f"Ray does not start on this host: {one_line(error)} With object_store_mb "
                f"{object_store_bytes >> 20} it needs that much shared memory (/dev/shm) and free "
                f"memory for its servers, and room in {self._folder.parent}."
            ) from error

    def close(self) -> None:
        """Stop Ray, end what is left of it and delete its folder."""
        import ray

        ray.shutdown()
        stdin = self._watchdog.stdin
        if stdin is not None and not stdin.closed:
            try:
                stdin.write(b"q")
                stdin.close()
            except BrokenPipeError:
                pass
            self._watchdog.wait()
            os.close(self._lock)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _make_folder() -> tuple[Path, int]:
    """A new private folder, and the handle of the lock that marks it as in use."""
    parent = runtime_folder()
    _remove_stale(parent)
    while True:
        folder = parent / f"ray-{secrets.token_hex(3)}"
        if len(os.fsencode(folder)) > _MAX_PATH:
            raise ExecutionError(
                f"the runtime folder {parent} has too long a name for Ray's sockets: at most "
                f"{_MAX_PATH - 11} bytes. Set NETCARVE_RUNTIME_DIR to a shorter one."
            )
        lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.mkdir(mode=0o700)
        except (BlockingIOError, FileExistsError):
            os.close(lock)
        else:
            return folder, lock


def _remove_stale(parent: Path) -> None:
    # A lock that is free belongs to a session whose owner and watchdog were both killed.
    for path in parent.glob("ray-*.lock"):
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
