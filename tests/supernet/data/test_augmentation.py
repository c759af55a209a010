from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from supernet.config import SupernetConfig
from supernet.data import Augmentation, Normalisation, augment, resize

OFF = Augmentation(rotation=0, scale=0, shift=0, shear=0)


def test_augmentation_is_a_function_of_its_generator(digits):
    images = resize(digits.train.images[:16], 24)
    strength = Augmentation()
    first = augment(images, strength, np.random.default_rng(5))
    assert torch.equal(first, augment(images, strength, np.random.default_rng(5)))
    assert not torch.equal(first, augment(images, strength, np.random.default_rng(6)))
    assert first.shape == images.shape
    none = Augmentation(rotation=0, scale=0, shift=0, shear=0)
    same = augment(images, none, np.random.default_rng(5))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_augmentation_stays_small(digits):
    images = resize(digits.train.images[:256], 24)
    changed = augment(images, Augmentation(), np.random.default_rng(0))
    similarity = torch.nn.functional.cosine_similarity(images.flatten(1), changed.flatten(1), dim=1)
    assert similarity.mean() > 0.6
    assert similarity.mean() < 0.99


@pytest.fixture
def coloured():
    return torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 0.3},
        {"horizontal_flip": 0.5},
        {"rotation": 20.0},
        {"randaugment_operations": 2, "randaugment_magnitude": 9},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_images_alone_and_by_its_generator(coloured, change):
    strength = OFF.model_copy(update=change)

    def changed(seed):
        return augment(coloured, strength, np.random.default_rng(seed), 12)

    first = changed(1)
    assert first.shape == coloured.shape
    assert not torch.equal(first, coloured)
    assert torch.equal(first, changed(1))
    assert not torch.equal(first, changed(2))
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1 + 1e-6


def test_what_is_off_draws_nothing(coloured):
    rng = np.random.default_rng(3)
    assert torch.equal(augment(coloured, OFF, rng, 12), coloured)
    assert rng.random() == np.random.default_rng(3).random()
    assert augment(coloured, OFF, rng, 20).shape == (64, 3, 20, 20)


def test_colours_change_as_if_the_images_were_not_normalised(coloured):
    """Brightness is a factor of light, which a mean that was subtracted must not hide."""
    known = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    strength = OFF.model_copy(
        update={"brightness": 0.5, "contrast": 0.3, "saturation": 0.3, "randaugment_operations": 1}
    )
    plain = augment(coloured, strength, np.random.default_rng(0), 12)
    normalised = augment(known.apply(coloured), strength, np.random.default_rng(0), 12, known)
    torch.testing.assert_close(known.invert(normalised), plain, atol=1e-5, rtol=0)


def test_its_affine_part_may_stand_outside_it():
    flat = SupernetConfig.model_validate({"rotation": 5, "augmentation": {"crop": 0.5}})
    nested = SupernetConfig.model_validate({"augmentation": {"rotation": 5, "crop": 0.5}})
    assert flat == nested
    assert SupernetConfig.model_validate(flat.model_dump(mode="json")) == flat
    with pytest.raises(ValidationError, match="'shear' is given twice"):
        SupernetConfig.model_validate({"shear": 0.1, "augmentation": {"shear": 0.2}})
    for bad in ({"rotation": -1}, {"augmentation": {"crop": 0}}, {"augmentation": {"cut": 0.5}}):
        with pytest.raises(ValidationError):
            SupernetConfig.model_validate(bad)
