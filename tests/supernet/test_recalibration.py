from __future__ import annotations

import torch

from supernet.data import resize
from supernet.recalibration import recalibrate


def test_statistics_depend_on_the_config_and_not_on_the_past(calibrated, tiny_space, digits):
    config, other = tiny_space.max_config(), tiny_space.min_config()
    images = digits.train.images[:200]

    def statistics(chosen):
        calibrated.activate(chosen)
        recalibrate(calibrated, images, batch_size=64)
        return [n.running_mean[: n.active].clone() for n in calibrated.norms()]

    first = statistics(config)
    small = statistics(other)
    again = statistics(config)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(
        not torch.allclose(a[: len(b)], b) for a, b in zip(first, small, strict=True) if len(b)
    )


def test_the_stem_gets_the_mean_over_whole_batches(calibrated, tiny_space, digits):
    calibrated.activate(tiny_space.max_config())
    recalibrate(calibrated, digits.train.images[:100], batch_size=40)
    assert not calibrated.training
    stem = calibrated.layers()["stem"]
    images = resize(digits.train.images[:80], calibrated.resolution)
    with torch.no_grad():
        expected = stem.conv(images).mean((0, 2, 3))
    torch.testing.assert_close(stem.norm.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_weights_stay(calibrated, tiny_space, digits):
    before = {n: p.clone() for n, p in calibrated.named_parameters()}
    calibrated.activate(tiny_space.min_config())
    recalibrate(calibrated, digits.train.images[:64])
    assert all(torch.equal(p, before[n]) for n, p in calibrated.named_parameters())
