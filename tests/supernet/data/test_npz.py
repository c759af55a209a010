from __future__ import annotations

import numpy as np
import pytest

from supernet.data import DataConfig, load_data
from supernet.errors import DataError


def write(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return DataConfig(name="npz", path=path)


def test_a_users_own_file(tmp_path):
    labels = np.repeat(np.arange(3), 20)
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 12, 12), dtype=np.uint8)
    data = load_data(write(tmp_path / "own.npz", images, labels))
    assert data.classes == 3
    assert data.train.images.shape == (36, 3, 12, 12)
    assert data.train.images.max() == 1
    assert data.report.labels.bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(20, int), "has 1 class"),
        (np.array([0] * 18 + [1] * 2), "class 1 has 2 images"),
        (np.repeat([0, 2], 10), "labels must be 0 to 1"),
        (np.repeat([0.0, 1.0], 10), "integer labels"),
        (np.repeat([0, 1], 5), "images"),
    ],
)
def test_unusable_labels_are_typed_errors(tmp_path, labels, message):
    config = write(tmp_path / "bad.npz", np.zeros((20, 8, 8), np.float32), labels)
    with pytest.raises(DataError, match=message):
        load_data(config)


def test_unreadable_files_are_typed_errors(tmp_path):
    with pytest.raises(DataError, match=r"absent\.npz"):
        load_data(DataConfig(name="npz", path=tmp_path / "absent.npz"))
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match=r"junk\.npz"):
        load_data(DataConfig(name="npz", path=tmp_path / "junk.npz"))
    np.save(tmp_path / "single.npy", np.zeros((20, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"single\.npy: .*one array"):
        load_data(DataConfig(name="npz", path=tmp_path / "single.npy"))
    objects = np.array([{"a": 1}] * 20, dtype=object)
    config = write(tmp_path / "pickle.npz", objects, np.repeat([0, 1], 10))
    with pytest.raises(DataError, match="pickle"):
        load_data(config)
    for value, dtype in ((np.nan, np.float32), (1.5, np.float32), (-1, int), (256, int)):
        images = np.full((20, 8, 8), value, dtype)
        with pytest.raises(DataError, match=r"allowed: 0 to (1|255)"):
            load_data(write(tmp_path / "range.npz", images, np.repeat([0, 1], 10)))


def test_the_content_and_not_the_place_decides_the_identity(tmp_path):
    labels = np.repeat(np.arange(3), 20)
    images = np.random.default_rng(0).random((60, 8, 8), dtype=np.float32)
    first = write(tmp_path / "a.npz", images, labels)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert first.identity() == DataConfig(name="npz", path=tmp_path / "b.npz").identity()
    assert str(tmp_path) not in str(first.identity())
    before = first.identity()
    write(tmp_path / "a.npz", 1 - images, labels)
    assert first.identity() != before
