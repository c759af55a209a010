from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.data.rand_augment import OPERATIONS, rand_augment


@pytest.fixture
def images():
    """Smooth and coloured, so that more of a change is more of a difference; none is white."""
    places = torch.linspace(0, 1, 12)
    smooth = (places[:, None] + 2 * places) / 3
    tints = torch.tensor([0.98, 0.7, 0.4]).view(1, 3, 1, 1)
    return (smooth * tints).repeat(32, 1, 1, 1)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("identity", "auto_contrast")])
def test_the_level_decides_how_much_an_operation_changes(images, name):
    signs = np.ones(32)
    none = OPERATIONS[name](images, 0.0, signs)
    # Eight bits are kept.
    torch.testing.assert_close(none, images, atol=1 / 255 + 1e-6, rtol=0)
    little, much = (
        float((OPERATIONS[name](images, level, signs) - images).abs().mean())
        for level in (0.3, 1.0)
    )
    assert little < much
    assert much > 0.005
    assert not torch.equal(
        OPERATIONS[name](images, 1.0, signs), OPERATIONS[name](images, 1.0, -signs)
    ) or name in ("posterize", "solarize")


def test_images_get_operations_of_their_own(images):
    same = images[:1].expand(32, -1, -1, -1)
    changed = rand_augment(same, 1, 9, np.random.default_rng(0))
    assert len(changed.flatten(1).unique(dim=0)) > 8
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert torch.equal(same, images[:1].expand(32, -1, -1, -1)), "the input stays as it is"
    again = rand_augment(same, 1, 9, np.random.default_rng(0))
    assert torch.equal(changed, again)


def test_no_operation_is_no_change(images):
    assert rand_augment(images, 0, 9, np.random.default_rng(0)) is images
