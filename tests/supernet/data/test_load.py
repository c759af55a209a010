from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.data import DataConfig, load_data, resize
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


def test_images_are_normalised_by_mean_and_deviation(digits):
    data = load_data(DataConfig(mean=(0.25,), std=(0.5,)))
    torch.testing.assert_close(data.report.images, (digits.report.images - 0.25) / 0.5)
    assert torch.equal(
        data.report.normalisation.invert(data.report.images).argmax(-1),
        digits.report.images.argmax(-1),
    )
    assert data.train.fingerprint != digits.train.fingerprint
    with pytest.raises(DataError, match="'mean' has 3 values; the images have 1 channels"):
        load_data(DataConfig(mean=(0.1, 0.2, 0.3), std=(1.0,)))


def test_a_fingerprint_is_of_images_labels_and_their_order(digits):
    part = digits.selection
    assert part.fingerprint == load_data(DataConfig(seed=0)).selection.fingerprint
    turned = type(part)(part.images.flip(0), part.labels.flip(0))
    relabelled = type(part)(part.images, (part.labels + 1) % 10)
    assert len({part.fingerprint, turned.fingerprint, relabelled.fingerprint}) == 3


def test_every_split_has_every_class_whatever_the_shares(tmp_path):
    """Six of a class: rounded up, the shares of both other splits would be all of them."""
    labels = np.arange(12) % 2
    np.savez(tmp_path / "few.npz", images=np.zeros((12, 4, 4), np.uint8), labels=labels)
    config = DataConfig(
        name="npz", path=tmp_path / "few.npz", selection_share=0.45, report_share=0.45
    )
    data = load_data(config)
    for part in (data.train, data.selection, data.report):
        assert part.labels.unique().tolist() == [0, 1]
    assert len(data.train) + len(data.selection) + len(data.report) == 12
