from __future__ import annotations

import torch

from supernet.objectives import (
    ExternalTeacherConfig,
    ExternalTeacherObjective,
    StepContext,
    alpha_divergence,
    soft_cross_entropy,
)
from supernet.samplers import Role


def test_all_learn_the_sharpened_labels_of_the_teacher(step, losses):
    _, logits, _ = step
    teacher = torch.randn(8, 10)
    objective = ExternalTeacherObjective(ExternalTeacherConfig(temperature=0.2), 0.0)
    found = losses(objective, *step, StepContext(teacher=teacher))
    target = (teacher / 0.2).softmax(1)
    expected = [soft_cross_entropy(own, target) for own in logits]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    assert ExternalTeacherObjective.uses_teacher(objective.config)


def test_the_smallest_may_learn_from_the_random_ones(step, losses):
    draws, logits, labels = step
    config = ExternalTeacherConfig(smallest="random_mean")
    context = StepContext(teacher=torch.randn(8, 10))
    objective = ExternalTeacherObjective(config, 0.0)
    found = losses(objective, draws[1:], logits[1:], labels, context)
    mean = (logits[1].softmax(1) + logits[2].softmax(1)) / 2
    torch.testing.assert_close(found[2], alpha_divergence(logits[3], mean))
    assert ExternalTeacherObjective.needs(config) == {Role.RANDOM, Role.MIN}
