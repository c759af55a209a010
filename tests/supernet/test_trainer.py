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
from supernet.config import SupernetConfig
from supernet.data import DataSplits, ImageSet, resize
from supernet.errors import CheckpointError, SupernetConfigError, TrainingDivergedError
from supernet.objectives import TaskConfig
from supernet.samplers import NestedConfig
from supernet.store import load_supernet
from supernet.trainer import Trainer, train_supernet

SHORT = SupernetConfig(
    warmup_epochs=1, epochs=1, batch_size=32, random_configs=1, checkpoint_every=3
)


@pytest.fixture(scope="module")
def few(digits) -> DataSplits:
    part = ImageSet(digits.train.images[:160], digits.train.labels[:160])
    return DataSplits(part, digits.selection, digits.report, digits.classes)


@pytest.fixture(scope="module")
def uninterrupted(tiny_space, few):
    trainer = Trainer(tiny_space, SHORT, few)
    losses = [trainer.train_step() for _ in range(trainer.total_steps)]
    return trainer, losses


def equal(a, b):
    left, right = a.supernet.state_dict(), b.supernet.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_resumed_run_equals_the_uninterrupted_one(tiny_space, few, uninterrupted, stop):
    """Stopped in the warm-up, exactly between the phases, and in the sandwich."""
    whole, losses = uninterrupted
    assert whole.warmup_steps == 5
    first = Trainer(tiny_space, SHORT, few)
    for _ in range(stop):
        first.train_step()
    torch.manual_seed(123)  # the global generator must not matter
    second = Trainer(tiny_space, SHORT, few)
    second.restore(first.checkpoint())
    rest = [second.train_step() for _ in range(second.total_steps - stop)]
    assert rest == losses[stop:]
    assert equal(second, whole)


def test_the_sandwich_trains_every_part_of_the_store(uninterrupted, tiny_space, few):
    whole, _ = uninterrupted
    before = Trainer(tiny_space, SHORT, few).supernet.state_dict()
    after = whole.supernet.state_dict()
    unmoved = [n for n, t in after.items() if torch.equal(t, before[n]) and "running" not in n]
    # Quantisers of forms that the few draws of this short run never chose may stand still.
    assert [n for n in unmoved if "quantizer" not in n and "kernel_transforms" not in n] == []


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


@pytest.fixture(scope="module")
def finished(tiny_space, few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train_supernet(tiny_space, SHORT, few, folder)
    return folder


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


def test_options_that_do_not_fit_the_data_are_typed_errors(tiny_space, few, digits):
    with pytest.raises(SupernetConfigError, match="batch_size 512 exceeds the 160"):
        Trainer(tiny_space, SHORT.model_copy(update={"batch_size": 512}), few)
    coloured = ImageSet(few.train.images.repeat(1, 3, 1, 1), few.train.labels)
    with pytest.raises(SupernetConfigError, match=r"\(3, 10\)"):
        Trainer(tiny_space, SHORT, DataSplits(coloured, few.selection, few.report, 10))


def test_the_seed_decides_everything(tiny_space, few):
    losses = {}
    for seed in (0, 1):
        trainer = Trainer(tiny_space, SHORT.model_copy(update={"seed": seed}), few)
        losses[seed] = [trainer.train_step() for _ in range(2)]
    assert losses[0] != losses[1]


def test_bfloat16_trains_the_same_up_to_its_rounding(tiny_space, few, uninterrupted):
    """With quantisers, whose codes bfloat16 could not hold."""
    config = SupernetConfig.model_validate(SHORT.model_dump() | {"precision": "bf16"})
    trainer = Trainer(tiny_space, config, few)
    losses = [trainer.train_step() for _ in range(trainer.total_steps)]
    assert losses == pytest.approx(uninterrupted[1], rel=0.05)
    assert losses != uninterrupted[1], "it does compute otherwise"
    assert {p.dtype for p in trainer.supernet.parameters()} == {torch.float32}


SEAMS = {
    "banks and chain": {
        "sampler": {
            "name": "performance",
            "levels": 3,
            "candidates": 512,
            "capacity": 2,
            "exploit_from": 1.0,
            "exploit_to": 1.0,
        },
        "objective": "chain",
    },
    "levels, wave, alpha, clipping": {
        "sampler": {"name": "complexity", "levels": 3, "candidates": 512, "bits": "triangle"},
        "objective": {"name": "distillation", "teacher": "random_mean", "divergence": "alpha"},
        "update": {
            "name": "accumulate",
            "optimizer": "sgd",
            "clip": "adaptive",
            "clip_limit": 0.1,
        },
        "regularizer": "kurtosis_skew",
        "learning_rate": 0.05,
    },
    "Hessian, steps per precision": {
        "sampler": {"name": "sandwich", "bits": {"name": "hessian", "probes": 2}},
        "objective": "instatune",
        "update": "per_precision",
    },
    "nested": {"sampler": {"name": "nested", "all_in_step": True}, "objective": "task"},
}


@pytest.mark.parametrize("options", SEAMS.values(), ids=list(SEAMS))
def test_plug_ins_train_and_resume_bitwise(small_space, few, tmp_path, options):
    """Through a checkpoint on disk, so that all their state is JSON and tensors."""
    config = SupernetConfig.model_validate({**SHORT.model_dump(), **options})
    whole = Trainer(small_space, config, few)
    losses = [whole.train_step() for _ in range(whole.total_steps)]
    first = Trainer(small_space, config, few)
    for _ in range(7):
        first.train_step()
    path = save_checkpoint(tmp_path, first.checkpoint())
    second = Trainer(small_space, config, few)
    second.restore(read_checkpoint(path))
    assert [second.train_step() for _ in range(second.total_steps - 7)] == losses[7:]
    assert equal(second, whole)
    assert second.checkpoint().state == whole.checkpoint().state


def test_phases_are_called_by_the_name_of_the_sampler(small_space, few, tmp_path):
    config = SHORT.model_copy(update={"sampler": NestedConfig(), "objective": TaskConfig()})
    phases = []
    train_supernet(small_space, config, few, tmp_path, lambda *a: phases.append(a))
    assert phases[0] == ("warm-up", 1, 5)
    assert phases[-1] == ("nested", 5, 5)


def test_options_that_contradict_one_another_are_refused_before_training(tiny_space, few):
    options = {**SHORT.model_dump(), "sampler": "complexity"}
    with pytest.raises(SupernetConfigError, match=r"objective distillation .* sampler complexity"):
        Trainer(tiny_space, SupernetConfig.model_validate(options), few)


def test_a_training_that_diverges_ends_and_says_what_to_lower(small_space, few, tmp_path):
    config = SHORT.model_copy(update={"warmup_learning_rate": 1e38, "checkpoint_every": 100})
    with pytest.raises(TrainingDivergedError, match=r"is nan in step [2-5] of 10; lower warmup_l"):
        train_supernet(small_space, config, few, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing that is not finite is stored"


def test_the_external_teacher_is_read_from_its_folder(tiny_space, small_space, few, finished):
    options = {**SHORT.model_dump(), "objective": "external_teacher", "teacher": finished}
    trainer = Trainer(small_space, SupernetConfig.model_validate(options), few)
    assert [trainer.train_step() for _ in range(7)][-1] > 0
    with pytest.raises(CheckpointError, match="none"):
        Trainer(small_space, SupernetConfig.model_validate({**options, "teacher": "none"}), few)
