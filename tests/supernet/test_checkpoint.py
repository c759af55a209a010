from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from supernet.checkpoint import Checkpoint, load_latest, read_checkpoint, save_checkpoint
from supernet.errors import CheckpointError, ForeignCheckpointError


def checkpoint(step):
    return Checkpoint(step, {"w": torch.full((3,), float(step)), "n": torch.tensor(2)}, {"a": 1})


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path):
    assert load_latest(tmp_path / "absent") == (None, [])
    for step in (5, 10, 999, 1000):
        save_checkpoint(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000999", "step-00001000"]
    latest, problems = load_latest(tmp_path)
    assert latest is not None
    assert (latest.step, latest.state, problems) == (1000, {"a": 1}, [])
    assert latest.tensors["w"].tolist() == [1000.0] * 3
    assert latest.tensors["n"].shape == ()


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_damage_is_named_and_the_previous_checkpoint_is_used(tmp_path, name, damage):
    save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2)) / name
    content = bytearray(newest.read_bytes())
    if damage == "missing":
        newest.unlink()
    elif damage == "truncated":
        newest.write_bytes(content[:-3])
    else:
        content[-2] ^= 0xFF
        newest.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(newest.parent)
    latest, problems = load_latest(tmp_path)
    assert latest is not None
    assert latest.step == 1
    assert len(problems) == 1
    assert str(newest) in problems[0]


@pytest.mark.parametrize(
    ("found", "written"),
    [('"a"', '"b"'), ('"step": 2', '"step": 3'), ('"state": {', '"state": {"c": 0, ')],
)
def test_a_changed_state_that_is_still_json_is_damage(tmp_path, found, written):
    save_checkpoint(tmp_path, checkpoint(1))
    path = save_checkpoint(tmp_path, checkpoint(2)) / "state.json"
    text = path.read_text()
    assert text.count(found) == 1
    path.write_text(text.replace(found, written))
    json.loads(path.read_text())
    with pytest.raises(CheckpointError, match=r"state\.json does not match its recorded hash"):
        read_checkpoint(path.parent)
    latest, problems = load_latest(tmp_path)
    assert latest is not None
    assert (latest.step, len(problems)) == (1, 1)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"sha256": 1}'])
def test_any_other_json_is_damage(tmp_path, text):
    path = save_checkpoint(tmp_path, checkpoint(1))
    (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_checkpoint(path)


def test_an_unusable_checkpoint_is_passed_over_and_another_runs_is_refused(tmp_path):
    def use(found):
        if found.step == 2:
            raise CheckpointError(f"{found.path} is of no use")
        if found.step == 3:
            raise ForeignCheckpointError("another run")

    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step))
    latest, problems = load_latest(tmp_path, use)
    assert latest is not None
    assert latest.step == 1
    assert problems == [f"{tmp_path / 'step-00000002'} is of no use"]
    save_checkpoint(tmp_path, checkpoint(3))
    with pytest.raises(ForeignCheckpointError, match="another run"):
        load_latest(tmp_path, use)


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(1))
    (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint.*state\.json"):
        load_latest(tmp_path)


def test_a_half_written_folder_is_not_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / ".step-00000002.abc").mkdir()
    latest, problems = load_latest(tmp_path)
    assert latest is not None
    assert (latest.step, problems) == (1, [])
    save_checkpoint(tmp_path, checkpoint(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_what_a_killed_run_left_makes_room_on_a_full_disk(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(1))
    left = tmp_path / ".step-00000002.abcdefgh.tmp"
    left.mkdir()

    def write(path, data):
        if left.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, data)

    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)
    save_checkpoint(tmp_path, checkpoint(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
