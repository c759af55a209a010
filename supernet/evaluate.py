"""Evaluation of configs and of extracted subnets; deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.config import Config
from supernet.data import DataSplits, resize
from supernet.extract import Subnet
from supernet.recalibration import recalibrate
from supernet.supernet import Supernet

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of one evaluation.

    Attributes:
        accuracy: Share of correct images, 0..1.
        loss: Mean cross-entropy, nats.
        count: Images evaluated.
    """

    accuracy: float
    loss: float
    count: int


@torch.no_grad()
def evaluate_module(module: nn.Module, images: Tensor, labels: Tensor) -> Evaluation:
    """Evaluate any classifier of images.

    Args:
        module: float32 [n, c, r, r] -> logits [n, classes]. A `Subnet` or `Supernet` gets the
            images at its own resolution, any other module gets them as they are.
        images: float32 [n, c, h, w].
        labels: int64 [n].
    """
    if isinstance(module, Subnet | Supernet):
        images = resize(images, module.resolution)
    module.eval()
    logits = torch.cat([module(chunk) for chunk in torch.split(images, _BATCH)])
    return Evaluation(
        accuracy=float((logits.argmax(1) == labels).double().mean()),
        loss=float(F.cross_entropy(logits.double(), labels)),
        count=len(labels),
    )


def prepare(supernet: Supernet, config: Config, data: DataSplits) -> Subnet:
    """The module that is evaluated, compiled and shipped: `config` activated, its BatchNorm
    recalibrated on the training split, and extracted."""
    supernet.activate(config)
    recalibrate(supernet, data.train.images)
    return supernet.extract(config)


def evaluate(
    supernet: Supernet, config: Config, data: DataSplits, split: str = "selection"
) -> Evaluation:
    """Accuracy of the extracted subnet of `config`, integers and all, on one split.

    Raises:
        DataError: Unknown split.
    """
    chosen = data.split(split)
    return evaluate_module(prepare(supernet, config, data), chosen.images, chosen.labels)
