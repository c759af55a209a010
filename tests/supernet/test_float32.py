from __future__ import annotations

import torch

from supernet.data import resize
from supernet.families import build_supernet
from supernet.float32 import activate_float32


def test_a_space_without_float32_computes_in_it_until_the_next_activation(small_bits_space, digits):
    torch.manual_seed(0)
    supernet = build_supernet(small_bits_space).eval()
    config = small_bits_space.min_config()
    images = resize(digits.train.images[:16], 8)
    supernet.calibrate([(config, images)])
    supernet.activate(config)
    with torch.no_grad():
        quantised = supernet(images)
        activate_float32(supernet, config)
        plain = supernet(images)
        assert all(layer.spec.precision.weight is None for layer in supernet.layers().values())
        supernet.activate(config)
        torch.testing.assert_close(supernet(images), quantised, atol=0, rtol=0)
    assert not torch.allclose(plain, quantised)
    assert supernet.active == config
