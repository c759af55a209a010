"""Ray Train's workers: what they train, what becomes of a killed one, how they are told to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from search.distributed_training import WorkerGroup, train_on_workers
from search.errors import ExecutionError
from search.execution import Executor
from search.progress import silent
from spaces import SearchSpace, get_space
from supernet import (
    DataConfig,
    SupernetConfig,
    TrainingStoppedError,
    load_data,
    load_supernet,
    train_supernet,
)

pytestmark = [pytest.mark.alone, pytest.mark.slow]

DATA = DataConfig(name="digits", selection_share=0.4, report_share=0.4)
CONFIG = SupernetConfig(
    warmup_epochs=2, epochs=2, batch_size=64, random_configs=1, checkpoint_every=4
)
GROUP = WorkerGroup(workers=2, threads=1, device="cpu", retries=1)


@pytest.fixture(scope="module")
def small_space() -> SearchSpace:
    choices = {
        "resolution": [20],
        "stage*.depth": [1],
        "stage*.expansion": [2],
        "stage*.kernel": [3],
        "*.se": [0],
    }
    return get_space("mobilenetv3_digits").restrict(choices=choices)


def no() -> bool:
    return False


def training_workers() -> list[int]:
    """Process ids of Ray Train's workers below this process."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            titles[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return sorted(
        pid for pid, title in titles.items() if b"RayTrainWorker" in title and is_ours(pid)
    )


@pytest.fixture(scope="module")
def undisturbed(executor: Executor, small_space: SearchSpace, tmp_path_factory) -> dict:
    """The weights that two workers train."""
    folder = tmp_path_factory.mktemp("undisturbed")
    reports: list[tuple[str, int, int]] = []
    train_on_workers(
        executor, small_space, CONFIG, DATA, folder, GROUP, lambda *r: reports.append(r), no
    )
    assert {phase for phase, _, _ in reports} == {"warm-up", "sandwich"}
    assert reports[-1][1] == reports[-1][2]
    assert {p.name.partition("-")[0] for p in folder.iterdir()} == {"step", "supernet"}
    assert not training_workers(), "they end with the training"
    return load_supernet(folder).state_dict()


def test_two_workers_train_what_one_process_trains(undisturbed, small_space, tmp_path):
    alone = train_supernet(small_space, CONFIG, load_data(DATA), tmp_path).state_dict()
    assert alone.keys() == undisturbed.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(undisturbed[name], tensor, rtol=1e-2, atol=1e-2, msg=name)


def test_a_stopped_training_goes_on_and_a_killed_worker_restarts(
    executor, small_space, undisturbed, tmp_path, capfd
):
    reports: list[tuple[str, int, int]] = []

    def report(*latest) -> None:
        reports.append(latest)

    with pytest.raises(TrainingStoppedError, match="after step"):
        train_on_workers(
            executor, small_space, CONFIG, DATA, tmp_path, GROUP, report, lambda: bool(reports)
        )
    stopped = max(tmp_path.glob("step-*"))
    killed: list[int] = []

    def kill_one(phase, done, total) -> None:
        reports.append((phase, done, total))
        if phase == "sandwich" and not killed:
            workers = training_workers()
            assert len(workers) == 2
            killed.append(workers[1])
            os.kill(workers[1], signal.SIGKILL)

    train_on_workers(executor, small_space, CONFIG, DATA, tmp_path, GROUP, kill_one, no)
    assert killed
    assert not stopped.exists(), "later checkpoints took its place"
    found = load_supernet(tmp_path).state_dict()
    assert all(torch.equal(found[n], t) for n, t in undisturbed.items())
    assert capfd.readouterr().out == "", "a command's output is its own"


def test_an_error_that_would_come_again_is_told_and_not_tried_again(
    executor, small_space, tmp_path
):
    config = CONFIG.model_copy(update={"batch_size": 5000})
    with pytest.raises(ExecutionError, match=r"SupernetConfigError: batch_size 5000 exceeds"):
        train_on_workers(executor, small_space, config, DATA, tmp_path, GROUP, silent, no)


def test_more_than_ray_has_is_refused_at_once(executor, small_space, tmp_path):
    for group, missing in (
        (WorkerGroup(2, 2, "cpu", 0), "2 CPU each, Ray has 2 CPU"),
        (WorkerGroup(1, 1, "cuda", 0), "1 GPU each, Ray has 0 GPU"),
    ):
        if missing.endswith("GPU") and torch.cuda.is_available():
            continue
        with pytest.raises(ExecutionError, match=missing):
            train_on_workers(executor, small_space, CONFIG, DATA, tmp_path, group, silent, no)
