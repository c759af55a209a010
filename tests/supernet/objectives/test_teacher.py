from __future__ import annotations

import shutil

import pytest
import torch

from supernet.config import SupernetConfig
from supernet.errors import CheckpointError, SupernetConfigError
from supernet.evaluate import prepare
from supernet.extract import save_subnet
from supernet.families import build_supernet
from supernet.objectives.teacher import Teacher
from supernet.store import save_supernet

CPU = torch.device("cpu")


def test_a_stored_subnet_teaches_images_of_any_resolution(
    calibrated, tiny_space, small_space, digits, tmp_path
):
    config = tiny_space.max_config()
    subnet = prepare(calibrated, config, digits)
    save_subnet(subnet, tmp_path)
    teacher = Teacher(tmp_path, small_space.family, CPU)
    images = digits.train.images[:8]
    assert teacher.module.resolution == 12
    logits = teacher.logits(images)
    assert logits.shape == (8, 10)
    assert not logits.requires_grad
    torch.testing.assert_close(teacher.logits(torch.cat([images, images]))[8:], logits)


def test_of_a_supernet_the_largest_config_teaches(small_space, digits, tmp_path):
    torch.manual_seed(0)
    supernet = build_supernet(small_space).eval()
    save_supernet(supernet, tmp_path)
    teacher = Teacher(tmp_path, small_space.family, CPU)
    images = digits.train.images[:4]
    supernet.activate(small_space.max_config())
    with torch.no_grad():
        torch.testing.assert_close(teacher.logits(images), supernet(images))


def test_a_teacher_of_other_data_is_refused(small_space, tmp_path):
    save_supernet(build_supernet(small_space), tmp_path)
    settings = small_space.family.settings.model_copy(update={"classes": 7})
    other = type(small_space.family)(settings)
    with pytest.raises(SupernetConfigError, match=r"\(1, 10\); the supernet has \(1, 7\)"):
        Teacher(tmp_path, other, CPU)


def test_a_folder_without_a_teacher_is_named(small_space, tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path / "none")):
        Teacher(tmp_path / "none", small_space.family, CPU)


def test_a_teacher_counts_by_its_content_wherever_it_lies(small_space, tmp_path):
    """In the key of the supernet that it teaches."""

    def key(folder):
        return SupernetConfig(objective="external_teacher", teacher=folder).key("space", {})

    save_supernet(build_supernet(small_space), tmp_path / "first")
    before = key(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    assert key(tmp_path / "moved") == before
    (tmp_path / "moved" / "step-00000001").mkdir()
    assert key(tmp_path / "moved") == before, "checkpoints beside it do not teach"
    save_supernet(build_supernet(small_space), tmp_path / "first")
    assert key(tmp_path / "first") != before, "trained anew in its place"
    with pytest.raises(CheckpointError, match=r"cannot read teacher .*none/supernet/.*allowed"):
        key(tmp_path / "none")
