"""A supernet trained by several workers, or on GPUs: Ray Train around `supernet.train_supernet`.

Ray Train starts the workers, joins them to a process group and starts all of them anew when one
died. Checkpoints are the training function's own: rank 0 writes them, a new group goes on from the
newest.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.errors import ExecutionError
from search.execution import Executor
from search.progress import Progress
from search.training_monitor import MonitorLine, TrainingMonitor
from spaces import NetcarveError, SearchSpace
from supernet import (
    DataConfig,
    SupernetConfig,
    TorchWorld,
    TrainingStoppedError,
    load_data,
    train_supernet,
)

_RUN = ".ray-train"
_POLL_S = 0.2
_LONGEST_CAUSE = 300


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """The workers of one training.

    Attributes:
        workers: How many.
        threads: Threads, and processors, of each.
        device: `cuda` gives each a GPU of its own.
        retries: How often the training goes on from its last checkpoint after a worker died.
    """

    workers: int
    threads: int
    device: Literal["cpu", "cuda"]
    retries: int

    @property
    def needs(self) -> dict[str, float]:
        """What Ray must have for a worker."""
        gpus = {"GPU": 1.0} if self.device == "cuda" else {}
        return {"CPU": float(self.threads), **gpus}


def train_on_workers(
    executor: Executor,
    space: SearchSpace,
    config: SupernetConfig,
    data: DataConfig,
    folder: Path,
    group: WorkerGroup,
    progress: Progress,
    stop: Callable[[], bool],
) -> None:
    """Train a supernet, or go on from the newest checkpoint in `folder`; see `train_supernet`.

    Args:
        executor: Whose Ray is used.
        space: The search space.
        config: Training options.
        data: Loaded by every worker.
        folder: Absolute; holds the checkpoints and in the end the supernet. Every worker sees it.
        group: The workers.
        progress: Called with (phase, steps done, steps in the phase) every now and then.
        stop: Asked every now and then; true ends the training after its present step.

    Raises:
        ExecutionError: Ray does not start or has too few processors or GPUs, a worker died once too
            often, or the training failed in a worker; the message says why.
        TrainingStoppedError: `stop` said so, and a checkpoint is in the folder.
    """
    executor.start()
    import ray

    progress(f"start {group.workers} workers", 0, 0)
    _check_resources(executor, group, progress)
    monitor = ray.remote(num_cpus=0)(TrainingMonitor).remote()
    task = training_task(space, config, data, folder, group, monitor)
    try:
        error = _fit(
            task, group, folder, executor.is_local, lambda: _follow(monitor, progress, stop)
        )
        failure, stopped = ray.get(monitor.outcome.remote())
    finally:
        ray.kill(monitor)
        shutil.rmtree(folder / _RUN, ignore_errors=True)
    conclude(failure, stopped, error, group.retries)


def training_task(
    space: SearchSpace,
    config: SupernetConfig,
    data: DataConfig,
    folder: Path,
    group: WorkerGroup,
    monitor: Any,
) -> dict[str, Any]:
    """What each worker is told: JSON, and the handle of the monitor."""
    return {
        "space": space.to_json(),
        "config": config.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "folder": str(folder),
        "threads": group.threads,
        "device": group.device,
        "monitor": monitor,
    }


def conclude(
    failure: str | None, stopped: str | None, error: Exception | None, retries: int
) -> None:
    """Raise what `train_on_workers` raises at the end.

    Args:
        failure: Why the training failed in a worker.
        stopped: Where it stopped because it was asked to.
        error: What Ray Train raised.
        retries: How often it went on after a failure.
    """
    if failure is not None:
        raise ExecutionError(f"the training failed in a worker: {failure}")
    if error is not None:
        # Ray Train's message is a page long and ends with the cause.
        cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ExecutionError(
            f"the training failed more than {retries} times; the same command goes on from its "
            f"last checkpoint. The last failure: {cause[:_LONGEST_CAUSE]}"
        ) from error
    if stopped is not None:
        raise TrainingStoppedError(stopped)


def _check_resources(executor: Executor, group: WorkerGroup, progress: Progress) -> None:
    """Refuse what Ray would wait for for ever; a cluster may still grow, and it is said that it
    must."""
    import ray

    found = ray.cluster_resources()
    for name, needed in group.needs.items():
        if group.workers * needed <= found.get(name, 0.0):
            continue
        if not executor.is_local:
            progress(f"wait for {group.workers * needed:g} {name} in the cluster", 0, 0)
        else:
            raise ExecutionError(
                f"{group.workers} training workers of {needed:g} {name} each, Ray has "
                f"{found.get(name, 0.0):g} {name}; lower training_workers or training_threads, or "
                "give the address of a larger cluster"
            )


def _fit(
    task: Mapping[str, Any],
    group: WorkerGroup,
    folder: Path,
    is_local: bool,
    follow: Callable[[], None],
) -> Exception | None:
    """Run Ray Train to its end; what it raised.

    Args:
        task: What each worker is told.
        group: The workers.
        folder: Holds what Ray Train writes, meanwhile.
        is_local: Whether all workers are on this host.
        follow: Called every now and then.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from search.loopback_group import LoopbackConfig

    make_group = LoopbackConfig if is_local else TorchConfig
    folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config=dict(task),
        torch_config=make_group(backend="nccl" if group.device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=group.workers,
            use_gpu=group.device == "cuda",
            resources_per_worker=group.needs,
        ),
        run_config=RunConfig(
            name=_RUN,
            storage_path=str(folder),
            failure_config=FailureConfig(
                max_failures=group.retries, controller_failure_limit=group.retries
            ),
        ),
    )
    raised: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            raised.append(error)

    # In the main thread Ray Train would take Ctrl-C over, and keep it.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        follow()
    return raised[0] if raised else None


def _follow(monitor: Any, progress: Progress, stop: Callable[[], bool]) -> None:
    import ray

    latest = ray.get(monitor.look.remote(stop()))
    if latest is not None:
        progress(*latest)


def _work(task: Mapping[str, Any]) -> None:
    """What each worker does."""
    import ray
    import torch
    from ray.train.torch import get_device

    monitor = task["monitor"]
    failure, _ = ray.get(monitor.outcome.remote())
    if failure is not None:
        # Started anew only because others were waiting for the worker that failed.
        return
    torch.set_num_threads(task["threads"])
    world = TorchWorld(get_device() if task["device"] == "cuda" else "cpu")
    line = MonitorLine(monitor)
    report = line.report if world.rank == 0 else None
    try:
        train_supernet(
            SearchSpace.from_json(task["space"]),
            SupernetConfig.model_validate(task["config"]),
            load_data(DataConfig.model_validate(task["data"]), report),
            task["folder"],
            report,
            world,
            lambda: line.is_stopping,
        )
    except TrainingStoppedError as stopped:
        ray.get(monitor.stopped.remote(str(stopped)))
    except (NetcarveError, OSError) as error:
        ray.get(monitor.failed.remote(f"{type(error).__name__}: {error}"))
        # Not raised, or Ray Train would try again. Workers that wait for this one hear of its end.
        torch.distributed.destroy_process_group()
