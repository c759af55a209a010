"""Ray Train's workers: what they train, what becomes of a killed one, how they are told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from search.distributed_training import (
    WorkerGroup,
    _check_resources,
    _work,
    conclude,
    train_on_workers,
    training_task,
)
from search.errors import ExecutionError
from search.execution import Executor
from search.job import parse_job
from search.loop import _resolve
from search.progress import silent
from search.session import RESOURCES, JobSession
from search.supernets import ensure_supernet
from search.training_monitor import TrainingMonitor
from search.workspace import open_workspace
from spaces import SearchSpace
from spaces.families import MobileNetV3, MobileNetV3Settings
from supernet import (
    DataConfig,
    SupernetConfig,
    TrainingStoppedError,
    load_data,
    load_supernet,
    train_supernet,
)
from supernet.updates import AccumulateConfig
from tests.search.process_tree import LOOPBACK, descendants, listening_addresses

pytestmark = [pytest.mark.alone, pytest.mark.slow]

CONFIG = SupernetConfig(
    warmup_epochs=1,
    epochs=4,
    batch_size=32,
    random_configs=1,
    warmup_learning_rate=0.002,
    learning_rate=0.002,
    update=AccumulateConfig(optimizer="sgd"),
    checkpoint_every=4,
)
GROUP = WorkerGroup(workers=2, threads=1, device="cpu", retries=1)


@pytest.fixture(scope="module")
def small_space() -> SearchSpace:
    """In float32 only: what is rounded may fall to either side."""
    stage = {"width": (8, 16), "depth": (1, 2), "expansion": (2,), "kernel": (3,)}
    settings = {
        "input_channels": 1,
        "classes": 10,
        "resolution": (8,),
        "stem": (8,),
        "stages": (stage, stage),
        "head": (24,),
        "schemes": ("fp32",),
    }
    return SearchSpace("small", MobileNetV3(MobileNetV3Settings.model_validate(settings)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Ten patterns and noise, 360 images for training."""
    chance = np.random.default_rng(0)
    labels = np.arange(440) % 10
    noise = chance.random((440, 8, 8), np.float32)
    path = tmp_path_factory.mktemp("data") / "patterns.npz"
    images = (chance.random((10, 8, 8), np.float32)[labels] + noise) / 2
    np.savez(path, images=images, labels=labels)
    return DataConfig(name="npz", path=path, selection_share=0.1, report_share=0.1)


def no() -> bool:
    return False


def training_workers() -> list[int]:
    """Process ids of Ray Train's workers below this process."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return sorted(found)


def test_after_the_death_of_a_worker_two_have_the_weights_of_one_process(
    executor: Executor,
    small_space: SearchSpace,
    data: DataConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Killed in the middle of the training; all workers go on from the last checkpoint. Meanwhile
    no other host can reach them."""
    folder, reports, killed, reachable = tmp_path / "workers", [], [], set()

    def kill_one(*latest) -> None:
        reports.append(latest)
        reachable.update(listening_addresses(descendants(os.getpid())))
        if latest[1] > 2 and not killed:
            workers = training_workers()
            assert len(workers) == 2
            os.kill(workers[1], signal.SIGKILL)
            killed.append(latest)

    train_on_workers(executor, small_space, CONFIG, data, folder, GROUP, kill_one, no)
    assert killed[0] != reports[-1], "it was killed before the end"
    assert reports[0] == ("start 2 workers", 0, 0)
    assert reports[-1] == ("sandwich", 44, 44)
    assert [address for address in reachable if not address.startswith(LOOPBACK)] == []
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"step", "supernet"}
    found = load_supernet(folder).state_dict()
    alone = train_supernet(small_space, CONFIG, load_data(data), tmp_path / "alone").state_dict()
    assert alone.keys() == found.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert capfd.readouterr().out == "", "a command's output is its own"


@pytest.fixture
def work(executor, small_space, data, tmp_path, monkeypatch):
    """Be the only worker of a training; why it failed, and where it stopped."""
    import ray

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)

    def do(stop: bool, **options) -> tuple[str | None, str | None]:
        monitor = ray.remote(num_cpus=0)(TrainingMonitor).remote()
        ray.get(monitor.look.remote(stop))
        config = CONFIG.model_copy(update=options)
        task = training_task(small_space, config, data, tmp_path / "run", GROUP, monitor)
        _work(task)
        return ray.get(monitor.outcome.remote())

    yield do
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_worker_stops_when_it_is_asked_to_and_leaves_a_checkpoint(work, tmp_path):
    failure, stopped = work(stop=True)
    assert failure is None
    assert "stopped after step 1 of 55" in stopped
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000001"]
    with pytest.raises(TrainingStoppedError, match="step 1 of 55"):
        conclude(failure, stopped, None, 1)


def test_an_error_that_would_come_again_is_told_and_not_tried_again(work):
    failure, stopped = work(stop=False, batch_size=5000)
    assert failure == "SupernetConfigError: batch_size 5000 exceeds the 360 training images"
    assert stopped is None
    assert not dist.is_initialized(), "other workers would wait for this one"
    with pytest.raises(ExecutionError, match="SupernetConfigError: batch_size 5000"):
        conclude(failure, stopped, None, 1)


def test_of_the_page_that_ray_prints_about_a_failure_the_cause_is_told():
    page = "Training failed due to worker errors:\n[Rank 1 Error Snippet]:\n" + 30 * "at x\n"
    with pytest.raises(ExecutionError) as raised:
        conclude(None, None, RuntimeError(page + "RuntimeError: CUDA out of memory\n"), 2)
    assert str(raised.value) == (
        "the training failed more than 2 times; the same command goes on from its last "
        "checkpoint. The last failure: RuntimeError: CUDA out of memory"
    )


def test_what_a_cluster_does_not_have_yet_is_said_while_it_is_waited_for(executor):
    class Joined(Executor):
        is_local = False

    said = []
    _check_resources(Joined(), WorkerGroup(300, 2, "cpu", 0), lambda *what: said.append(what))
    assert said == [("wait for 600 CPU in the cluster", 0, 0)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be had")
def test_gpus_that_ray_does_not_have_are_refused_at_once(executor, small_space, data, tmp_path):
    group = WorkerGroup(1, 1, "cuda", 0)
    with pytest.raises(ExecutionError, match="1 training workers of 1 GPU each, Ray has 0 GPU"):
        train_on_workers(executor, small_space, CONFIG, data, tmp_path, group, silent, no)


def test_a_job_that_wants_more_workers_than_there_are_processors_is_refused(
    executor, tiny_job, tmp_path
):
    settings = parse_job(tiny_job | {"resources": {"training_workers": 3, "num_cpus": 2}})
    with open_workspace(tmp_path) as places:
        spec = _resolve(settings, places.store)
        job, _ = places.store.jobs.record_job("tiny", spec, settings.search_space().key, 0)
        resources = settings.resources.model_dump(mode="json")
        places.store.jobs.save_checkpoint(job.id, RESOURCES, resources)
        with JobSession(places.store, places.artifacts, job, places.home, silent) as session:
            with pytest.raises(ExecutionError, match="3 training workers of 1 CPU each, Ray has 2"):
                ensure_supernet(session)
            assert not session.supernet_folder.exists()
