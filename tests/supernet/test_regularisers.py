from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from supernet.config import SupernetConfig
from supernet.data import DataSplits
from supernet.families import build_supernet
from supernet.regularisers import (
    KurtosisSkew,
    KurtosisSkewConfig,
    moments,
    regularised_weights,
)
from supernet.trainer import Trainer


def test_moments_are_those_of_all_elements():
    weight = torch.distributions.Gamma(2.0, 1.0).sample((6, 4, 3, 3))
    skewness, kurtosis = moments(weight)
    flat = weight.numpy().astype(np.float64).ravel()
    assert float(skewness) == pytest.approx(stats.skew(flat), rel=1e-4)
    assert float(kurtosis) == pytest.approx(stats.kurtosis(flat, fisher=False), rel=1e-4)
    assert float(moments(torch.linspace(-1, 1, 2001))[1]) == pytest.approx(1.8, abs=1e-2)


def test_all_float_weights_but_the_first_layers_are_regularised(small_space):
    torch.manual_seed(0)
    supernet = build_supernet(small_space)
    supernet.activate(small_space.min_config())  # the active widths and bits do not matter
    regularizer = KurtosisSkew(KurtosisSkewConfig(kurtosis=0.5, skewness=2.0))
    loss = regularizer.loss(supernet)
    weights = regularised_weights(supernet)
    terms = []
    for weight in weights:
        skewness, kurtosis = moments(weight.detach())
        terms.append(2.0 * skewness**2 + 0.5 * (kurtosis - 1.8) ** 2)
    torch.testing.assert_close(loss.detach(), sum(terms) / len(terms))
    loss.backward()
    moved = {n for n, p in supernet.named_parameters() if p.grad is not None}
    names = [name for name, _ in supernet.named_parameters()]
    expected = {n for n in names if n.endswith(("conv.weight", "linear.weight"))}
    assert moved == expected - {"stem.conv.weight"}


def test_training_with_it_makes_weights_uniform(small_bits_space, digits: DataSplits):
    """EQ-Net: the mean kurtosis comes near 1.8; without it, it stays that of a normal."""
    mean = {}
    for regularizer in (None, {"name": "kurtosis_skew", "kurtosis": 0.3, "warmup": True}):
        config = SupernetConfig(warmup_epochs=4, epochs=1, regularizer=regularizer)
        trainer = Trainer(small_bits_space, config, digits)
        while trainer.step < trainer.warmup_steps:
            trainer.train_step()
        found = [float(moments(w.detach())[1]) for w in regularised_weights(trainer.supernet)]
        mean[regularizer is not None] = sum(found) / len(found)
    assert abs(mean[True] - 1.8) < 0.2
    assert abs(mean[False] - 1.8) > 0.8
