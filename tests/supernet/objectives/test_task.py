from __future__ import annotations

import torch

from supernet.objectives import StepContext, TaskConfig, TaskObjective, cross_entropy


def test_every_config_learns_from_the_labels(step, losses):
    _, logits, labels = step
    found = losses(TaskObjective(TaskConfig(), 0.1), *step, StepContext())
    expected = [cross_entropy(own, labels, 0.1) for own in logits]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
