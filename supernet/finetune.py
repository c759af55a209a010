"""Fine-tuning of one subnet: a few epochs on its own, from the supernet's weights."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from spaces.config import Config
from supernet.data import Augmentation, DataSplits, augment
from supernet.evaluate import prepare
from supernet.extract import Subnet
from supernet.supernet import Supernet

_ORDER_STREAM, _AUGMENTATION_STREAM = 1, 2


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

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    batch_size: Annotated[int, Field(ge=8)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    quantizer_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


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
    """
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
    batch_size = min(settings.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch_size
    total = settings.epochs * steps_per_epoch
    for step in range(total):
        epoch, place = divmod(step, steps_per_epoch)
        order = np.random.default_rng((settings.seed, _ORDER_STREAM, epoch)).permutation(
            len(data.train)
        )
        chosen = torch.from_numpy(order[place * batch_size :][:batch_size])
        images = augment(
            data.train.images[chosen],
            augmentation,
            np.random.default_rng((settings.seed, _AUGMENTATION_STREAM, step)),
            own.resolution,
            data.train.normalisation,
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / total))
        own.train()
        optimizer.zero_grad(set_to_none=True)
        logits = own(images)
        loss = F.cross_entropy(
            logits, data.train.labels[chosen], label_smoothing=settings.label_smoothing
        )
        torch.autograd.backward(loss)
        optimizer.step()
    return prepare(own, config, data)
