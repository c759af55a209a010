from __future__ import annotations

import pytest
import torch

from supernet.errors import CheckpointError
from supernet.store import load_supernet, save_supernet


def test_a_loaded_supernet_is_the_saved_one(calibrated, tiny_space, tmp_path):
    calibrated.activate(tiny_space.min_config())
    save_supernet(calibrated, tmp_path)
    loaded = load_supernet(tmp_path)
    assert loaded.active == tiny_space.max_config()
    assert loaded.space.key == tiny_space.key
    assert not loaded.training
    left, right = loaded.state_dict(), calibrated.state_dict()
    assert all(torch.equal(left[n], right[n]) for n in right)


@pytest.mark.parametrize("name", ["supernet.safetensors", "supernet.json"])
def test_a_damaged_supernet_is_named(calibrated, tmp_path, name):
    with pytest.raises(CheckpointError, match=r"supernet\.json"):
        load_supernet(tmp_path)
    save_supernet(calibrated, tmp_path)
    path = tmp_path / "supernet" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=name):
        load_supernet(tmp_path)
