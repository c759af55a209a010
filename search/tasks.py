"""What runs in Ray workers: evaluating a subnet's accuracy, training it on, building its binary.

Module-level functions of plain arguments. Each worker process keeps the supernet, the data and
the devices' compiler children that it has used.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.devices import Device, make_device, parse_device
from spaces.files import atomic_directory

if TYPE_CHECKING:
    from supernet import DataSplits, Subnet, Supernet

# Images of the selection split on which a binary is compared with its module.
CHECK_IMAGES = 8


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """Evaluate one config on a split of the data and keep its extracted subnet.

    Attributes:
        supernet: Folder of the trained supernet.
        data: `DataConfig` as JSON.
        config: Dimension -> value.
        subnet: Folder that receives the extracted subnet.
        split: The split it is evaluated on.
    """

    supernet: str
    data: str
    config: dict[str, Any]
    subnet: str
    split: str


@dataclass(frozen=True, slots=True)
class FinetuneTask(EvaluationTask):
    """Likewise, after training the subnet on.

    Attributes:
        settings: `FinetuneConfig` as JSON.
        augmentation: `Augmentation` of the training images as JSON.
        checkpoints: Folder from whose checkpoints an interrupted training goes on; whoever records
            the result removes it.
    """

    settings: str
    augmentation: str
    checkpoints: str


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Accuracy 0 to 1, mean cross-entropy in nats, images evaluated, wall seconds."""

    accuracy: float
    loss: float
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildTask:
    """Compile an extracted subnet for a device.

    Attributes:
        device: Its `DeviceConfig`, or that of its kind, as JSON.
        data: `DataConfig` as JSON; the binary is checked on real images.
        subnet: Folder of the extracted subnet.
        build: Folder that receives the build.
    """

    device: str
    data: str
    subnet: str
    build: str


def evaluate_subnet(task: EvaluationTask) -> EvaluationResult:
    """Recalibrate, extract, evaluate on the task's split, and write the subnet.

    Raises:
        DataError: No such split.
    """
    from supernet import prepare

    start = time.monotonic()
    supernet, data = _supernet(task.supernet), _data(task.data)
    subnet = prepare(supernet, supernet.space.config(task.config), data)
    return _evaluated(subnet, task, data, start)


def finetune_subnet(task: FinetuneTask) -> EvaluationResult:
    """Fine-tune a copy, extract, evaluate on the task's split, and write the subnet.

    Raises:
        DataError: No such split.
    """
    from supernet import Augmentation, FinetuneConfig, finetune

    start = time.monotonic()
    supernet, data = _supernet(task.supernet), _data(task.data)
    subnet = finetune(
        supernet,
        supernet.space.config(task.config),
        data,
        FinetuneConfig.model_validate_json(task.settings),
        Augmentation.model_validate_json(task.augmentation),
        Path(task.checkpoints),
    )
    return _evaluated(subnet, task, data, start)


def _evaluated(
    subnet: Subnet, task: EvaluationTask, data: DataSplits, start: float
) -> EvaluationResult:
    from supernet import evaluate_module, save_subnet

    chosen = data.split(task.split)
    found = evaluate_module(subnet, chosen.images, chosen.labels)
    with atomic_directory(task.subnet) as folder:
        save_subnet(subnet, folder)
    return EvaluationResult(
        found.accuracy, found.loss, found.count, round(time.monotonic() - start, 3)
    )


def build_binary(task: BuildTask) -> float:
    """Compile a subnet and check the binary on real images; the wall seconds it took."""
    from supernet import load_subnet, resize

    start = time.monotonic()
    subnet = load_subnet(task.subnet)
    images = _data(task.data).selection.images[:CHECK_IMAGES]
    sample = resize(images, subnet.resolution).numpy()
    _device(task.device).build(subnet, subnet.specs, task.build, sample)
    return round(time.monotonic() - start, 3)


@lru_cache(maxsize=1)
def _supernet(folder: str) -> Supernet:
    import torch

    from supernet import load_supernet

    # One task takes one CPU; more threads would only get in each other's way.
    torch.set_num_threads(1)
    return load_supernet(Path(folder))


@lru_cache(maxsize=1)
def _data(config: str) -> DataSplits:
    from supernet import DataConfig, load_data

    return load_data(DataConfig.model_validate_json(config))


@lru_cache(maxsize=8)
def _device(config: str) -> Device:
    return make_device(parse_device(json.loads(config)))
