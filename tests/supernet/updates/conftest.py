from __future__ import annotations

import pytest
import torch

from supernet.config import SupernetConfig
from supernet.data import resize
from supernet.descent import Descent
from supernet.distributed import SingleWorld
from supernet.families import build_supernet
from supernet.samplers import Draw, Role
from supernet.schedule import Rates

RATES = Rates(0.05, 0.01)


@pytest.fixture
def descend(small_space, digits):
    """Options and steps, each a list of configs -> the descent after them; always the same start.

    Every config learns from the labels, so that its gradient does not depend on the others.
    """

    def run(steps, **options):
        torch.manual_seed(0)
        supernet = build_supernet(small_space)
        images = resize(digits.train.images[:64], 8)
        supernet.calibrate([(small_space.max_config(), images)])
        config = SupernetConfig.model_validate(
            {"batch_size": 32, "objective": "task", "label_smoothing": 0, **options}
        )
        descent = Descent(supernet.train(), config, SingleWorld())
        for configs in steps:
            draws = [Draw(config, Role.RANDOM) for config in configs]
            descent.step(draws, images[:32], digits.train.labels[:32], RATES, progress=0.0)
        return descent

    return run


@pytest.fixture
def two(small_space):
    """Configs of 2 and of 8 bits everywhere."""
    values = dict(small_space.max_config())
    return [
        small_space.config({k: bits if k.endswith("w_bits") else v for k, v in values.items()})
        for bits in (2, 8)
    ]
