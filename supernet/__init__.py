"""Floor 2: the weight-sharing supernet, its training, and the subnets extracted from it."""

from __future__ import annotations

from supernet.config import SupernetConfig
from supernet.data import Augmentation, DataConfig, DataSplits, ImageSet, load_data, resize
from supernet.distributed import SingleWorld, TorchWorld, World
from supernet.errors import (
    CheckpointError,
    DataError,
    SupernetConfigError,
    TrainingStoppedError,
)
from supernet.evaluate import Evaluation, evaluate, evaluate_module, prepare
from supernet.extract import Subnet, load_subnet, save_subnet
from supernet.families import build_supernet
from supernet.finetune import FinetuneConfig, finetune
from supernet.quantizers import QUANTIZERS, FakeQuantizer, IntegerTensor
from supernet.samplers import ConfigSampler, Draw, Role, SandwichSampler
from supernet.store import load_supernet, save_supernet
from supernet.supernet import Supernet
from supernet.trainer import Trainer
from supernet.training_run import train_supernet

__all__ = [
    "QUANTIZERS",
    "Augmentation",
    "CheckpointError",
    "ConfigSampler",
    "DataConfig",
    "DataError",
    "DataSplits",
    "Draw",
    "Evaluation",
    "FakeQuantizer",
    "FinetuneConfig",
    "ImageSet",
    "IntegerTensor",
    "Role",
    "SandwichSampler",
    "SingleWorld",
    "Subnet",
    "Supernet",
    "SupernetConfig",
    "SupernetConfigError",
    "TorchWorld",
    "Trainer",
    "TrainingStoppedError",
    "World",
    "build_supernet",
    "evaluate",
    "evaluate_module",
    "finetune",
    "load_data",
    "load_subnet",
    "load_supernet",
    "prepare",
    "resize",
    "save_subnet",
    "save_supernet",
    "train_supernet",
]
