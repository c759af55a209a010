"""Floor 2: the weight-sharing supernet, its training, and the subnets extracted from it."""

from __future__ import annotations

from supernet.config import SupernetConfig
from supernet.data import DataConfig, DataSplits, ImageSet, load_data, resize
from supernet.errors import CheckpointError, DataError, SupernetConfigError
from supernet.evaluate import Evaluation, evaluate, evaluate_module, prepare
from supernet.extract import Subnet, load_subnet, save_subnet
from supernet.families import build_supernet
from supernet.quantizers import QUANTIZERS, FakeQuantizer, IntegerTensor
from supernet.sampler import ConfigSampler, Draw, Role, SandwichSampler
from supernet.store import load_supernet, save_supernet
from supernet.supernet import Supernet
from supernet.trainer import Trainer, train_supernet

__all__ = [
    "QUANTIZERS",
    "CheckpointError",
    "ConfigSampler",
    "DataConfig",
    "DataError",
    "DataSplits",
    "Draw",
    "Evaluation",
    "FakeQuantizer",
    "ImageSet",
    "IntegerTensor",
    "Role",
    "SandwichSampler",
    "Subnet",
    "Supernet",
    "SupernetConfig",
    "SupernetConfigError",
    "Trainer",
    "build_supernet",
    "evaluate",
    "evaluate_module",
    "load_data",
    "load_subnet",
    "load_supernet",
    "prepare",
    "resize",
    "save_subnet",
    "save_supernet",
    "train_supernet",
]
