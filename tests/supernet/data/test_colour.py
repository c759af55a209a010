from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.data import colour


@pytest.fixture
def images():
    return torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def factor(value):
    return torch.full((8, 1, 1, 1), value)


@pytest.mark.parametrize("change", [colour.brightness, colour.contrast, colour.saturation])
def test_factor_one_changes_nothing_and_results_stay_in_range(images, change):
    torch.testing.assert_close(change(images, factor(1.0)), images)
    for value in (0.0, 5.0):
        changed = change(images, factor(value))
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1


def test_factor_zero_is_black_one_grey_and_no_colour(images):
    assert float(colour.brightness(images, factor(0.0)).max()) == 0
    flat = colour.contrast(images, factor(0.0))
    assert float(flat.std((1, 2, 3)).max()) < 1e-6
    grey = colour.saturation(images, factor(0.0))
    assert torch.equal(grey[:, 0], grey[:, 1])
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    torch.testing.assert_close(grey[:, 2], luma)


def test_stretching_posterising_and_solarising():
    ramp = torch.linspace(0.25, 0.5, 16).view(1, 1, 4, 4)
    stretched = colour.auto_contrast(ramp)
    torch.testing.assert_close(stretched.flatten(), torch.linspace(0, 1, 16))
    assert torch.equal(colour.auto_contrast(torch.full_like(ramp, 0.3)), torch.full_like(ramp, 0.3))
    levels = torch.arange(256).view(1, 1, 16, 16) / 255
    assert (colour.posterize(levels, 2) * 255).round().unique().tolist() == [0, 64, 128, 192]
    assert torch.equal(colour.solarize(ramp, 0.4), torch.where(ramp < 0.4, ramp, 1 - ramp))


def test_jitter_draws_for_each_image_and_only_for_what_changes(images):
    rng = np.random.default_rng(0)
    assert colour.jitter(images, (0.0, 0.0, 0.0), rng) is images
    assert rng.random() == np.random.default_rng(0).random()
    brighter = colour.jitter(0.1 + 0 * images, (0.5, 0.0, 0.0), np.random.default_rng(0))
    factors = brighter[:, 0, 0, 0] / 0.1
    assert len(factors.unique()) == 8
    assert 0.5 <= float(factors.min()) < 1 < float(factors.max()) <= 1.5
