"""Evaluation of configs and of extracted subnets; deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.config import Config
from supernet.data import DataSplits, Images, resize
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
def evaluate_module(module: nn.Module, images: Images, labels: Tensor) -> Evaluation:
    """Evaluate any classifier of images.

    Args:
        module: float32 [n, c, r, r] -> logits [n, classes]. A `Subnet` or `Supernet` gets the
            images at its own resolution, any other module gets them as they are.
        images: float32 [n, c, h, w].
        labels: int64 [n].
    """
    module.eval()
    logits = []
    for start in range(0, len(labels), _BATCH):
        chunk = images[start : start + _BATCH]
        if isinstance(module, Subnet | Supernet):
            chunk = resize(chunk, module.resolution)
        logits.append(module(chunk))
    scores = torch.cat(logits)
    return Evaluation(
        accuracy=float((scores.argmax(1) == labels).double().mean()),
        loss=float(F.cross_entropy(scores.double(), labels)),
        count=len(labels),
    )


def prepare(supernet: Supernet, config: Config, data: DataSplits) -> Subnet:
    """The module that is evaluated, compiled and shipped: `config` activated, its BatchNorm
    recalibrated on the training split, and extracted."""
    supernet.activate(config)
    recalibrate(supernet, data.train.images)
    return supernet.extract(config)


def evaluate(
    supernet: Supernet,
    config: Config,
    data: DataSplits,
    split: str = "selection",
    recalibrated: bool = True,
) -> Evaluation:
    """Accuracy of the extracted subnet of `config`, integers and all, on one split.

    Args:
        supernet: Ends with `config` activated.
        config: The subnet.
        data: The split is read, and for BatchNorm the training split.
        split: Its name.
        recalibrated: False: with the BatchNorm statistics that the supernet happens to hold, to
            show what recalibration is for.

    Raises:
        DataError: Unknown split.
    """
    chosen = data.split(split)
    subnet = prepare(supernet, config, data) if recalibrated else supernet.extract(config)
    return evaluate_module(subnet, chosen.images, chosen.labels)
