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
from tests.supernet.perceptron import (  # noqa: F401 - a fixture
    accuracy,
    few_digits,
    perceptron_space,
    perceptron_supernets,
)


def test_moments_are_those_of_all_elements():
    weight = torch.distributions.Gamma(2.0, 1.0).sample((6, 4, 3, 3))
    skewness, kurtosis = moments(weight)
    flat = weight.numpy().astype(np.float64).ravel()
    assert float(skewness) == pytest.approx(stats.skew(flat), rel=1e-4)
    assert float(kurtosis) == pytest.approx(stats.kurtosis(flat, fisher=False), rel=1e-4)
    assert float(moments(torch.linspace(-1, 1, 2001))[1]) == pytest.approx(1.8, abs=1e-2)


def test_weights_that_begin_as_zeros_have_a_gradient():
    weight = torch.zeros(4, 3, 1, 1, requires_grad=True)
    sum(moments(weight)).backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros_like(weight))


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


def round_to(weight, bits):
    """Round in place to the integers of `bits`, the largest magnitude being the greatest one."""
    step = weight.abs().max() / (2 ** (bits - 1) - 1)
    weight.copy_((weight / step).round() * step)


@pytest.mark.slow
def test_what_is_rounded_to_3_bits_loses_less_with_it():
    """EQ-Net, in the mean of four seeds; not so at 2 bits, nor with steps of the least error."""
    space = perceptron_space(64, schemes=("fp32",))
    kurtosis, rounded = [], []
    for seed in range(4):
        few, held_out = few_digits(seed)
        for regularizer in (None, {"name": "kurtosis_skew", "kurtosis": 0.3, "warmup": True}):
            config = SupernetConfig(
                seed=seed, warmup_epochs=25, epochs=1, regularizer=regularizer,
                warmup_learning_rate=6e-3, label_smoothing=0.0,
            )  # fmt: skip
            trainer = Trainer(space, config, few)
            while trainer.step < trainer.warmup_steps:
                trainer.train_step()
            weights = regularised_weights(trainer.supernet)
            with torch.no_grad():
                kurtosis.append(np.mean([float(moments(w)[1]) for w in weights]))
                assert accuracy(trainer.supernet, space.max_config(), held_out) > 0.9
                for weight in weights:
                    round_to(weight, bits=3)
            rounded.append(accuracy(trainer.supernet, space.max_config(), held_out))
    normal, uniform = np.reshape(kurtosis, (4, 2)).T
    assert (abs(uniform - 1.8) < 0.2).all()
    assert (abs(normal - 1.8) > 0.8).all()
    without, with_it = np.reshape(rounded, (4, 2)).mean(0)
    assert with_it > without + 0.01
