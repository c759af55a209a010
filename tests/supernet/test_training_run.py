from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from supernet.checkpoint import load_latest, read_checkpoint, save_checkpoint
from supernet.data import resize
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.objectives import TaskConfig
from supernet.samplers import NestedConfig
from supernet.store import load_supernet
from supernet.trainer import Trainer
from supernet.training_run import train_supernet
from tests.supernet.short_run import SHORT


@pytest.mark.slow
def test_killing_the_process_loses_no_more_than_the_last_steps(
    tiny_space, few, uninterrupted, tmp_path
):
    """kill -9 at three moments of a real run in child processes, the same call again each time."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os, signal, sys, torch\n"
        "from safetensors.torch import load_file\n"
        "from spaces.space import SearchSpace\n"
        "from supernet import *\n"
        "torch.set_num_threads(1)\n"
        "space = SearchSpace.from_json(json.load(open(sys.argv[1])))\n"
        "config = SupernetConfig.model_validate_json(open(sys.argv[2]).read())\n"
        "part = ImageSet(**load_file('few.safetensors'))\n"
        "data = DataSplits(part, part, part, 10)\n"
        "say = lambda *a: print(*a, flush=True)\n"
        # Imports take longer than the training, so each of its processes is forked behind them.
        "status = signal.SIGKILL\n"
        "while status == signal.SIGKILL:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        say('process', os.getpid())\n"
        "        train_supernet(space, config, data, sys.argv[3], say)\n"
        "        os._exit(0)\n"
        "    status = os.waitpid(child, 0)[1]\n"
        "    say('ended')\n"
        "sys.exit(status != 0)\n"
    )
    import json

    (tmp_path / "space.json").write_text(json.dumps(tiny_space.to_json()))
    part = {"images": few.train.images, "labels": few.train.labels}
    save_file(part, tmp_path / "few.safetensors")
    (tmp_path / "config.json").write_text(SHORT.model_dump_json())
    folder = tmp_path / "run"
    command = [sys.executable, str(script), "space.json", "config.json", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    seen = []
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        for kill_after in (4, 4, 2, 10**9):
            lines = []
            for line in parent.stdout:
                words = line.split()
                if words[0] == "ended":
                    break
                if words[0] == "process":
                    child = int(words[1])
                elif len(lines) < kill_after:
                    lines.append(words)
                    if len(lines) == kill_after:
                        os.kill(child, signal.SIGKILL)
            seen.append(lines)
    assert parent.returncode == 0
    assert seen[0][0] == ["warm-up", "1", "5"]
    assert seen[1][0] == ["warm-up", "4", "5"]  # a checkpoint stood at step 3
    # A killed child may have done more than was heard of it.
    rest = [line for lines in seen[2:] for line in lines]
    assert rest[0] in [["sandwich", "2", "5"], ["sandwich", "5", "5"]]
    assert rest[-1] == ["sandwich", "5", "5"]
    trained, whole = load_supernet(folder).state_dict(), uninterrupted[0].supernet.state_dict()
    # Training keeps no statistics; the stored supernet has those of its largest config.
    assert all(torch.equal(trained[n], whole[n]) for n in whole if "running" not in n)


def test_the_stored_supernet_computes_what_the_returned_one_does(
    tiny_space, few, tmp_path, uninterrupted
):
    save_checkpoint(tmp_path, uninterrupted[0].checkpoint())
    returned = train_supernet(tiny_space, SHORT, few, tmp_path)
    loaded = load_supernet(tmp_path)
    assert loaded.active == returned.active == tiny_space.max_config()
    images = resize(few.selection.images[:64], loaded.resolution)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), returned(images))


@contextlib.contextmanager
def full_disk(room):
    """Within it the kernel refuses to write more than `room` bytes into a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_disk_leaves_the_previous_checkpoint(tiny_space, few, tmp_path, uninterrupted, room):
    """Full before a byte of the next checkpoint is written, and in the middle of it."""
    first = Trainer(tiny_space, SHORT, few)
    for _ in range(2):
        first.train_step()
    previous = save_checkpoint(tmp_path, first.checkpoint())
    assert (previous / "tensors.safetensors").stat().st_size > room
    with full_disk(room), pytest.raises(OSError, match="File too large"):
        train_supernet(tiny_space, SHORT, few, tmp_path)
    assert list(tmp_path.iterdir()) == [previous]
    found, problems = load_latest(tmp_path)
    assert (found.step, problems) == (2, [])
    supernet = train_supernet(tiny_space, SHORT, few, tmp_path)
    left, right = supernet.state_dict(), uninterrupted[0].supernet.state_dict()
    assert all(torch.equal(left[n], right[n]) for n in left if "running" not in n)


def junk_tensors(path):
    (path / "tensors.safetensors").write_bytes(b"junk")


def drop_state(path):
    found = read_checkpoint(path)
    state = {k: v for k, v in found.state.items() if k != "sandwich_started"}
    save_checkpoint(path.parent, dataclasses.replace(found, state=state))


def drop_weight(path):
    found = read_checkpoint(path)
    del found.tensors[next(n for n in found.tensors if n.startswith("supernet."))]
    save_checkpoint(path.parent, found)


def reshape_weight(path):
    found = read_checkpoint(path)
    name = next(n for n in found.tensors if n.startswith("supernet.") and found.tensors[n].dim())
    found.tensors[name] = found.tensors[name][None]
    save_checkpoint(path.parent, found)


def reshape_moment(path):
    found = read_checkpoint(path)
    name = next(n for n in found.tensors if n.endswith(".exp_avg"))
    found.tensors[name] = found.tensors[name][None]
    save_checkpoint(path.parent, found)


def rename_moment(path):
    found = read_checkpoint(path)
    name = next(n for n in found.tensors if n.endswith(".exp_avg"))
    found.tensors["junk"] = found.tensors.pop(name)
    save_checkpoint(path.parent, found)


@pytest.mark.parametrize(
    "damage",
    [junk_tensors, drop_state, drop_weight, reshape_weight, reshape_moment, rename_moment],
)
def test_an_unusable_newest_checkpoint_is_passed_over(
    tiny_space, few, tmp_path, finished, uninterrupted, damage, caplog
):
    """Whether its files are damaged, or whole and of another content than a run needs."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    newest = max(tmp_path.glob("step-*"))
    damage(newest)
    phases = []
    supernet = train_supernet(tiny_space, SHORT, few, tmp_path, lambda *a: phases.append(a))
    assert phases == [("sandwich", 5, 5)]
    assert f"{newest}" in caplog.text
    left, right = supernet.state_dict(), uninterrupted[0].supernet.state_dict()
    assert all(torch.equal(left[n], right[n]) for n in left if "running" not in n)


def test_another_runs_folder_is_refused(tiny_space, few, tmp_path, uninterrupted):
    save_checkpoint(tmp_path, uninterrupted[0].checkpoint())
    other = SHORT.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(CheckpointError, match=r"step-.*another space, data set or training opt"):
        train_supernet(tiny_space, other, few, tmp_path)


def test_phases_are_called_by_the_name_of_the_sampler(small_space, few, tmp_path):
    config = SHORT.model_copy(update={"sampler": NestedConfig(), "objective": TaskConfig()})
    phases = []
    train_supernet(small_space, config, few, tmp_path, lambda *a: phases.append(a))
    assert phases[0] == ("warm-up", 1, 5)
    assert phases[-1] == ("nested", 5, 5)


def test_a_training_that_diverges_ends_and_says_what_to_lower(small_space, few, tmp_path):
    config = SHORT.model_copy(update={"warmup_learning_rate": 1e38, "checkpoint_every": 100})
    with pytest.raises(TrainingDivergedError, match=r"is nan in step [2-5] of 10; lower warmup_l"):
        train_supernet(small_space, config, few, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing that is not finite is stored"
