from __future__ import annotations

import pytest
import torch

from supernet.objectives import (
    DistillationConfig,
    DistillationObjective,
    StepContext,
    alpha_divergence,
    cross_entropy,
    distillation,
)
from supernet.samplers import Role


@pytest.mark.parametrize("divergence", ["kl", "alpha"])
def test_all_learn_from_the_largest(step, losses, divergence):
    _, logits, labels = step
    objective = DistillationObjective(DistillationConfig(divergence=divergence), 0.05)
    found = losses(objective, *step, StepContext())
    torch.testing.assert_close(found[0], cross_entropy(logits[0], labels, 0.05))
    for own, loss in zip(logits[1:], found[1:], strict=True):
        if divergence == "kl":
            expected = distillation(own, logits[0])
        else:
            expected = alpha_divergence(own, logits[0].softmax(1))
        torch.testing.assert_close(loss, expected)


def test_the_smallest_learns_from_the_mean_of_the_random_ones(step, losses):
    draws, logits, labels = step
    config = DistillationConfig(teacher="random_mean", divergence="alpha")
    objective = DistillationObjective(config, 0.0)
    found = losses(objective, draws[1:], logits[1:], labels, StepContext())
    torch.testing.assert_close(found[0], cross_entropy(logits[1], labels))
    torch.testing.assert_close(found[1], cross_entropy(logits[2], labels))
    mean = (logits[1].softmax(1) + logits[2].softmax(1)) / 2
    torch.testing.assert_close(found[2], alpha_divergence(logits[3], mean))
    plain = DistillationObjective(DistillationConfig(teacher="random_mean"), 0.0)
    kl = losses(plain, draws[1:], logits[1:], labels, StepContext())[2]
    p, q = mean, logits[3].softmax(1)
    torch.testing.assert_close(kl, (p * (p / q).log()).sum(1).mean())


def test_it_says_which_configs_it_needs():
    assert DistillationObjective.needs(DistillationConfig()) == {Role.MAX}
    mean = DistillationConfig(teacher="random_mean")
    assert DistillationObjective.needs(mean) == {Role.RANDOM, Role.MIN}
