from __future__ import annotations

import pytest
import torch

from spaces.families import MobileNetV3, MobileNetV3Settings
from spaces.space import SearchSpace
from supernet.config import SupernetConfig
from supernet.data import DataConfig, DataSplits, load_data, resize
from supernet.families import build_supernet
from supernet.supernet import Supernet
from supernet.trainer import Trainer


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_space() -> SearchSpace:
    settings = MobileNetV3Settings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (8, 12),
            "stem": (8, 16),
            "stages": (
                {
                    "width": (8, 16, 24),
                    "depth": (1, 2),
                    "expansion": (2, 4),
                    "kernel": (3, 5, 7),
                    "activation": "relu",
                },
                {
                    "width": (16, 32),
                    "depth": (1, 2),
                    "expansion": (2, 4),
                    "kernel": (3, 5),
                    "stride": 2,
                },
            ),
            "head": (24, 48),
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("tiny", MobileNetV3(settings))


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    return load_data(DataConfig(seed=0))


@pytest.fixture(scope="session")
def calibrated(tiny_space: SearchSpace, digits: DataSplits) -> Supernet:
    """Random weights, random kernel transforms and gammas of both signs, calibrated quantisers."""
    torch.manual_seed(0)
    supernet = build_supernet(tiny_space)
    with torch.no_grad():
        for norm in supernet.norms():
            norm.weight.mul_(torch.randn_like(norm.weight).sign())
            norm.bias.normal_(std=0.2)
        for name, parameter in supernet.named_parameters():
            if "kernel_transforms" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = tiny_space.max_config()
    images = resize(digits.train.images[:128], int(config["resolution"]))
    supernet.calibrate([(config, images)])
    return supernet


@pytest.fixture(scope="session")
def quick_config() -> SupernetConfig:
    return SupernetConfig(
        warmup_epochs=6,
        epochs=4,
        batch_size=64,
        random_configs=1,
        weight_decay=0.02,
        checkpoint_every=10,
    )


@pytest.fixture(scope="session")
def warm(tiny_space: SearchSpace, digits: DataSplits, quick_config: SupernetConfig) -> Trainer:
    """A run at the end of its warm-up: the largest network is trained, nothing is reordered."""
    trainer = Trainer(tiny_space, quick_config, digits)
    while trainer.step < trainer.warmup_steps:
        trainer.train_step()
    return trainer


@pytest.fixture(scope="session")
def trained(
    warm: Trainer, tiny_space: SearchSpace, digits: DataSplits, quick_config: SupernetConfig
) -> Supernet:
    trainer = Trainer(tiny_space, quick_config, digits)
    trainer.restore(warm.checkpoint())
    while trainer.step < trainer.total_steps:
        trainer.train_step()
    return trainer.supernet
