from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from supernet.config import SupernetConfig
from supernet.data import Augmentation, DataConfig, augment, load_data, resize
from supernet.errors import DataError


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_splits_are_stratified_disjoint_and_decided_by_the_seed(digits):
    sizes = [len(digits.train), len(digits.selection), len(digits.report)]
    assert sum(sizes) == 1797
    assert sizes[1] == pytest.approx(0.2 * 1797, abs=10)
    assert sizes[2] == pytest.approx(0.2 * 1797, abs=10)
    for part in (digits.train, digits.selection, digits.report):
        share = part.labels.bincount().double() / len(part)
        assert share.min() > 0.09
        assert share.max() < 0.11
    distinct = len(rows(digits.train.images) | rows(digits.selection.images))
    distinct_all = len(
        rows(digits.train.images) | rows(digits.selection.images) | rows(digits.report.images)
    )
    # Disjoint by index; scikit-learn's digits hold hardly any equal images.
    assert distinct_all >= distinct + len(rows(digits.report.images)) - 3
    again = load_data(DataConfig(seed=0))
    assert torch.equal(again.report.images, digits.report.images)
    assert not torch.equal(load_data(DataConfig(seed=1)).report.images, digits.report.images)


def test_images_are_normalised_and_resized_bilinearly(digits):
    images = digits.train.images
    assert images.dtype is torch.float32
    assert images.shape[1:] == (1, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert resize(images, 8) is images
    large = resize(images[:4], 32)
    assert large.shape == (4, 1, 32, 32)
    torch.testing.assert_close(large.mean((1, 2, 3)), images[:4].mean((1, 2, 3)))


def test_augmentation_is_a_function_of_its_generator(digits):
    images = resize(digits.train.images[:16], 24)
    strength = Augmentation()
    first = augment(images, strength, np.random.default_rng(5))
    assert torch.equal(first, augment(images, strength, np.random.default_rng(5)))
    assert not torch.equal(first, augment(images, strength, np.random.default_rng(6)))
    assert first.shape == images.shape
    none = Augmentation(0, 0, 0, 0)
    same = augment(images, none, np.random.default_rng(5))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_augmentation_stays_small(digits):
    images = resize(digits.train.images[:256], 24)
    changed = augment(images, Augmentation(), np.random.default_rng(0))
    similarity = torch.nn.functional.cosine_similarity(images.flatten(1), changed.flatten(1), dim=1)
    assert similarity.mean() > 0.6
    assert similarity.mean() < 0.99


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


def test_the_path_goes_with_npz_and_is_kept_absolute(tmp_path, monkeypatch):
    with pytest.raises(ValidationError, match="'npz' needs a path"):
        DataConfig(name="npz")
    with pytest.raises(ValidationError, match=r"'digits' has no path.*own\.npz.*name: npz"):
        DataConfig(path="own.npz")
    write(tmp_path / "own.npz", np.zeros((20, 8, 8), np.float32), np.repeat([0, 1], 10))
    monkeypatch.chdir(tmp_path)
    config = DataConfig(name="npz", path="own.npz")
    monkeypatch.chdir("/")
    assert config.path == tmp_path / "own.npz"
    assert load_data(config).classes == 2
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("model", [DataConfig, SupernetConfig])
def test_seeds_fit_every_generator(model):
    assert model(seed=2**31 - 1).seed == 2**31 - 1
    for seed in (-1, 2**31, 10**30):
        with pytest.raises(ValidationError, match="seed"):
            model(seed=seed)


def test_unknown_keys_names_and_splits_are_refused(digits):
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"nam": "digits"})
    with pytest.raises(ValidationError):
        DataConfig(name="imagenet")
    with pytest.raises(DataError, match="train, selection, report"):
        digits.split("test")
