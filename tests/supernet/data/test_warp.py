from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.data.warp import random_affine, random_flip, random_resized_crop, warp


@pytest.fixture
def ramp():
    """64 images whose pixels are their place across, 0 to 1."""
    return torch.linspace(0, 1, 16).expand(64, 1, 16, 16).contiguous()


def test_the_identity_changes_nothing_and_what_lies_outside_is_zero(ramp):
    same = np.tile(np.eye(2, 3), (64, 1, 1))
    torch.testing.assert_close(warp(ramp, same), ramp, atol=1e-5, rtol=0)
    moved = same.copy()
    moved[:, 0, 2] = 1.0  # half the image to the right: the grid spans -1..1
    half = warp(ramp, moved)
    torch.testing.assert_close(half[..., :8], ramp[..., 8:], atol=1e-5, rtol=0)
    assert float(half[..., 8:].abs().max()) == 0


def test_a_crop_is_a_part_of_the_image_and_large_enough(ramp):
    """The range of places across is the width of the part; with the other axis, its area."""
    rng = np.random.default_rng(0)
    across = random_resized_crop(ramp, 0.25, 32, rng)
    assert across.shape == (64, 1, 32, 32)
    assert float(across.min()) >= 0
    assert float(across.max()) <= 1
    down = random_resized_crop(ramp.transpose(2, 3), 0.25, 32, np.random.default_rng(0))
    width = (across.amax((1, 2, 3)) - across.amin((1, 2, 3))) * 15 / 16
    height = (down.amax((1, 2, 3)) - down.amin((1, 2, 3))) * 15 / 16
    area = width * height
    # Bilinear sampling loses up to a pixel at each end.
    assert float(area.min()) > 0.15
    assert float(area.min()) < 0.45
    assert float(area.max()) > 0.7
    assert float((width / height).max()) > 1.1
    assert float((width / height).min()) < 0.9
    assert random_resized_crop(ramp, 1.0, 8, rng).shape == (64, 1, 8, 8)


def test_flips_are_as_frequent_as_asked(ramp):
    flipped = random_flip(ramp, 0.5, np.random.default_rng(0))
    is_flipped = flipped[:, 0, 0, 0] == 1
    assert torch.equal(flipped[is_flipped], ramp[is_flipped].flip(-1))
    assert torch.equal(flipped[~is_flipped], ramp[~is_flipped])
    assert 20 < int(is_flipped.sum()) < 44
    assert torch.equal(random_flip(ramp, 1.0, np.random.default_rng(0)), ramp.flip(-1))


def test_a_rotation_keeps_what_a_shift_moves():
    disc = torch.zeros(32, 1, 33, 33)
    places = torch.linspace(-1, 1, 33)
    disc[:, 0] = ((places[:, None] ** 2 + places**2) < 0.25).float()
    turned = random_affine(disc, 90, 0, 0, 0, np.random.default_rng(0))
    assert float((turned - disc).abs().mean()) < 0.02
    shifted = random_affine(disc, 0, 0, 0.3, 0, np.random.default_rng(0))
    assert float((shifted - disc).abs().mean()) > 0.05
