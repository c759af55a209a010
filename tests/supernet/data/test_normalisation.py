from __future__ import annotations

import torch

from supernet.data import Normalisation


def test_each_channel_has_its_own_and_inverting_undoes_it():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    known = Normalisation((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    normalised = known.apply(images)
    torch.testing.assert_close(normalised[:, 2], (images[:, 2] - 0.3) / 2)
    torch.testing.assert_close(known.invert(normalised), images)


def test_without_one_images_stay_what_they_are():
    images = torch.rand(2, 3, 4, 4)
    assert Normalisation().apply(images) is images
    assert Normalisation().invert(images) is images
    assert not Normalisation((0.0, 0.1)).is_identity
