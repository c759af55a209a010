from __future__ import annotations

import pytest
import torch

from supernet.samplers import Draw, Role


@pytest.fixture
def step(small_space):
    """A step's draws (largest, random, smallest), their logits, and labels."""
    torch.manual_seed(0)
    random = small_space.from_indices(small_space.cardinalities // 2)
    draws = [
        Draw(small_space.max_config(), Role.MAX),
        Draw(random, Role.RANDOM),
        Draw(random, Role.RANDOM),
        Draw(small_space.min_config(), Role.MIN),
    ]
    return draws, [torch.randn(8, 10) for _ in draws], torch.arange(8)


@pytest.fixture
def losses():
    """Losses of all draws of a step, each seeing what came before it."""

    def compute(objective, draws, logits, labels, context):
        found = []
        for draw, own in zip(draws, logits, strict=True):
            found.append(objective.loss(draw, own, labels, context))
            context.earlier.append((draw, own))
        return found

    return compute
