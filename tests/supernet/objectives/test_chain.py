from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.config import SupernetConfig
from supernet.objectives import (
    ChainConfig,
    ChainObjective,
    StepContext,
    cross_entropy,
    distillation,
)
from supernet.samplers import Role
from supernet.trainer import Trainer
from tests.supernet.perceptron import (  # noqa: F401 - a fixture
    accuracy,
    few_digits,
    perceptron_space,
    perceptron_supernets,
)


def test_each_config_learns_from_the_one_before(step, losses):
    _, logits, labels = step
    found = losses(ChainObjective(ChainConfig(guidance=0.3), 0.0), *step, StepContext())
    torch.testing.assert_close(found[0], cross_entropy(logits[0], labels))
    for before, own, loss in zip(logits, logits[1:], found[1:], strict=False):
        expected = 0.3 * distillation(own, before) + 0.7 * cross_entropy(own, labels)
        torch.testing.assert_close(loss, expected)


def test_without_a_largest_config_it_begins_with_the_most_bits_of_the_first(step, small_space):
    draws, _, _ = step
    objective = ChainObjective(ChainConfig(), 0.0)
    assert objective.complete(draws) == draws
    completed = objective.complete(draws[1:])
    assert completed[1:] == draws[1:]
    assert completed[0].role is Role.MAX
    for name, value in completed[0].config.items():
        bits = (
            name.endswith("w_bits")
            and small_space.active(draws[1].config.indices[None])[0, small_space.position(name)]
        )
        assert value == (32 if bits else draws[1].config[name])


@pytest.mark.slow
def test_the_chain_is_no_worse_at_the_fewest_bits():
    """EQ-Net's ablation on digits: at 2 bits not better beyond noise, and not worse by a point in
    the mean of five seeds; both are within 3 points of 8 bits."""
    space = perceptron_space(96, w_bits=(2, 3, 4, 8), a_bits=(8,))
    lowest, highest = [], []
    for seed in range(5):
        few, held_out = few_digits(seed)
        for name in ("task", "chain"):
            config = SupernetConfig(
                seed=seed, warmup_epochs=8, epochs=8, objective=name, random_configs=1,
                warmup_learning_rate=5e-3, learning_rate=3e-3, label_smoothing=0.0,
            )  # fmt: skip
            trainer = Trainer(space, config, few)
            while trainer.step < trainer.total_steps:
                trainer.train_step()
            lowest.append(accuracy(trainer.supernet, space.min_config(), held_out))
            highest.append(accuracy(trainer.supernet, space.max_config(), held_out))
    task, chain = np.reshape(lowest, (5, 2)).mean(0)
    assert chain >= task - 0.01
    assert min(task, chain) > np.reshape(highest, (5, 2)).mean(0).max() - 0.03 > 0.8
