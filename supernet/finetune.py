"""Fine-tuning of one subnet: a few epochs on its own, from the supernet's weights."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from spaces.config import Config
from supernet.batches import Batches
from supernet.config import SupernetConfig
from supernet.data import Augmentation, DataSplits
from supernet.distributed import SingleWorld
from supernet.errors import SupernetConfigError
from supernet.evaluate import prepare
from supernet.extract import Subnet
from supernet.supernet import Supernet


class FinetuneConfig(BaseModel):
    """How the chosen subnets are fine-tuned after a search.

    Attributes:
        epochs: Epochs of each subnet; 0: none is fine-tuned.
        seed: Decides batches and augmentation; below 2**31.
        batch_size: Images a step.
        learning_rate: Peak rate of weights (AdamW), decayed to zero by a cosine.
        quantizer_learning_rate: Likewise, of scales and zero points.
        weight_decay: Of weight matrices and convolutions.
        label_smoothing: Of the cross-entropy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    batch_size: Annotated[int, Field(ge=8)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    quantizer_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


def check_finetuning(settings: FinetuneConfig, data: DataSplits) -> None:
    """Refuse options that do not fit the data.

    Raises:
        SupernetConfigError: A batch is larger than the training split.
    """
    if settings.epochs and settings.batch_size > len(data.train):
        raise SupernetConfigError(
            f"finetune.batch_size {settings.batch_size} exceeds the {len(data.train)} training "
            "images"
        )


def finetune(
    supernet: Supernet,
    config: Config,
    data: DataSplits,
    settings: FinetuneConfig,
    augmentation: Augmentation,
) -> Subnet:
    """A subnet after training it alone, with its fake quantisation, on the training split.

    Deterministic (on as many threads). What it shares with other subnets is trained in a copy.

    Args:
        supernet: Where the weights start; it stays as it is.
        config: The subnet.
        data: Only its training split is read.
        settings: How.
        augmentation: Of the training images.

    Returns:
        The subnet, its BatchNorm recalibrated, as `supernet.prepare` makes one.

    Raises:
        SupernetConfigError: A batch is larger than the training split.
    """
    check_finetuning(settings, data)
    own = copy.deepcopy(supernet)
    own.activate(config)
    weights, quantizers = own.weight_parameters(), own.quantizer_parameters()
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in weights if p.dim() > 1],
            "peak": settings.learning_rate,
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in weights if p.dim() <= 1], "peak": settings.learning_rate},
        {"params": quantizers, "peak": settings.quantizer_learning_rate},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=1.0, weight_decay=0.0)
    options = SupernetConfig(
        seed=settings.seed, batch_size=settings.batch_size, augmentation=augmentation
    )
    batches = Batches(data.train, options, own.resolution, SingleWorld())
    total = settings.epochs * batches.per_epoch
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / total))
        images, labels = batches.batch(step)
        own.train()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(own(images), labels, label_smoothing=settings.label_smoothing)
        torch.autograd.backward(loss)
        optimizer.step()
    return prepare(own, config, data)
