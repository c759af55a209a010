"""Run verified evaluations as Ray tasks: each result is handed on as soon as it is there."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from search.errors import ExecutionError
from search.ray_session import LocalRay, one_line, set_ray_defaults

NAMESPACE = "netcarve"
_CONNECT_S = 20.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class ExecutionConfig(BaseModel):
    """Where tasks run.

    Attributes:
        address: None starts Ray on this host, reachable from it alone; `auto` or
            `ray://HOST:PORT` joins a cluster.
        num_cpus: Tasks of one CPU that run at once on this host; None takes every CPU that this
            process may use.
        object_store_mb: Ray's shared memory in MiB; results are small, so it is too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    object_store_mb: int = Field(default=100, ge=80)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no result.

    Attributes:
        error: The class name of the exception, or of Ray's error when the worker died.
        message: Its message.
        trace: The traceback in the worker, "" when the worker died.
        crashed: The worker died in every attempt (segmentation fault, out of memory, killed).
    """

    error: str
    message: str
    trace: str
    crashed: bool


@dataclass(frozen=True, slots=True)
class TaskResult(Generic[Item, Result]):
    """The outcome of one item: `value` when `failure` is None."""

    index: int
    item: Item
    value: Result | None
    failure: Failure | None


class Executor:
    """Runs functions on Ray, which starts with the first task and ends with `close`.

    Use it as a context manager, in the main thread. A Ray that this process has already started is
    used and left running. When the process dies, however it dies, the processes of the Ray that was
    started here and what they have started die with it.
    """

    def __init__(self, config: ExecutionConfig | None = None) -> None:
        self._config = config or ExecutionConfig()
        self._local: LocalRay | None = None
        self._joined = False

    @property
    def is_local(self) -> bool:
        """Whether Ray runs on this host alone, unless whoever called it had started another."""
        return self._config.address is None

    def start(self) -> None:
        """Start or join Ray now (about 4 s); `run_tasks` does it when it was not called.

        Raises:
            ExecutionError: Ray does not start, or the cluster cannot be reached.
        """
        set_ray_defaults(self._config.address)
        import ray

        if ray.is_initialized():
            # Started by this executor, or by whoever called it: then it is theirs to stop.
            return
        if self.is_local:
            cpus = self._config.num_cpus or len(os.sched_getaffinity(0))
            self._local = LocalRay(cpus, self._config.object_store_mb * 2**20, NAMESPACE)
            return
        try:
            _check_answers(str(self._config.address))
            ray.init(
                self._config.address,
                logging_level="ERROR",
                log_to_driver=False,
                namespace=NAMESPACE,
            )
        except Exception as error:
            # Ray raises Exception itself when a cluster does not answer as it should.
            ray.shutdown()
            raise ExecutionError(
                f"cannot reach the Ray cluster at {self._config.address!r}: {one_line(error)} "
                "Allowed: auto (a cluster on this host), ray://HOST:PORT (needs ray[client]), or "
                "no address, which starts Ray here."
            ) from error
        self._joined = True

    def close(self) -> None:
        """Stop the local Ray, or leave the cluster. Does nothing when it was not started."""
        if self._local is not None:
            self._local.close()
        elif self._joined:
            import ray

            ray.shutdown()
        self._local, self._joined = None, False

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run_tasks(
        self,
        fn: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        on_result: Callable[[TaskResult[Item, Result]], None],
        retries: int = 3,
        cpus: float = 1.0,
    ) -> list[TaskResult[Item, Result]]:
        """Apply `fn` to every item in Ray workers.

        Args:
            fn: A function of an importable module; it and the items are sent to the workers.
            items: Its arguments: small and plain; paths absolute.
            on_result: Called here, in the order of completion, before anything else is waited for:
                whoever stores results in it loses none that is finished.
            retries: How often an item is run again when its *worker* died. An exception of `fn`
                is a result: its item has failed, and the others go on.
            cpus: CPUs that one task takes.

        Returns:
            The outcomes in the order of `items`.

        Raises:
            ExecutionError: Ray does not start, or has fewer than `cpus`.
            BaseException: what `on_result` raises; the tasks still running are cancelled.
        """
        if not items:
            return []
        self.start()
        import ray

        available = ray.cluster_resources().get("CPU", 0.0)
        if self.is_local and cpus > available:
            raise ExecutionError(f"a task takes {cpus:g} CPUs, Ray has {available:g}.")
        task = ray.remote(fn).options(max_retries=retries, num_cpus=cpus)
        # A few more than run at once, so that no worker waits for this loop.
        window = 2 * max(1, int(available / cpus))
        waiting = iter(enumerate(items))
        pending: dict[Any, int] = {}
        outcomes: dict[int, TaskResult[Item, Result]] = {}
        try:
            while len(outcomes) < len(items):
                _fill(pending, window, waiting, task)
                ready, _ = ray.wait(list(pending), num_returns=1)
                for reference in ready:
                    index = pending.pop(reference)
                    value, failure = _outcome(reference)
                    outcomes[index] = TaskResult(index, items[index], value, failure)
                    on_result(outcomes[index])
        except BaseException:
            for reference in pending:
                ray.cancel(reference, force=True)
            raise
        return [outcomes[index] for index in range(len(items))]


def _check_answers(address: str) -> None:
    """Raise OSError when nothing listens at HOST:PORT, for which Ray would wait many minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if found is not None:
        host, port = found[1].strip("[]"), min(int(found[2]), 2**16 - 1)
        socket.create_connection((host, port), _CONNECT_S).close()


def _fill(
    pending: dict[Any, int], window: int, waiting: Iterator[tuple[int, Item]], task: Any
) -> None:
    while len(pending) < window:
        entry = next(waiting, None)
        if entry is None:
            return
        index, item = entry
        pending[task.remote(item)] = index


def _outcome(reference: Any) -> tuple[Any, Failure | None]:
    import ray

    try:
        return ray.get(reference), None
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        trace = re.sub(r"\x1b\[\d+m", "", str(error))
        return None, Failure(type(cause).__name__, str(cause), trace, crashed=False)
    except ray.exceptions.RayError as error:
        return None, Failure(type(error).__name__, str(error), "", crashed=True)
