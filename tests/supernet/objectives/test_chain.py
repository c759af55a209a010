from __future__ import annotations

import torch

from supernet.config import SupernetConfig
from supernet.data import DataSplits, ImageSet
from supernet.evaluate import evaluate
from supernet.objectives import (
    ChainConfig,
    ChainObjective,
    StepContext,
    cross_entropy,
    distillation,
)
from supernet.samplers import Role
from supernet.trainer import Trainer


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


def test_the_chain_is_no_worse_at_the_fewest_bits(small_bits_space, digits: DataSplits):
    """EQ-Net's ablation on digits: not better beyond noise, and not worse; here one
    run, with a margin to match."""
    part = ImageSet(digits.train.images[:640], digits.train.labels[:640])
    few = DataSplits(part, digits.selection, digits.report, digits.classes)
    accuracy = {}
    for name in ("task", "chain"):
        config = SupernetConfig(warmup_epochs=4, epochs=4, objective=name, random_configs=1)
        trainer = Trainer(small_bits_space, config, few)
        while trainer.step < trainer.total_steps:
            trainer.train_step()
        lowest = small_bits_space.min_config()
        accuracy[name] = evaluate(trainer.supernet, lowest, few).accuracy
    print(accuracy)
    assert accuracy["chain"] > 0.6
    assert accuracy["chain"] >= accuracy["task"] - 0.02
