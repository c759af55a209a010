"""Fine-tuning of one subnet: a few epochs on its own, from the supernet's weights."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import shutil
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from spaces.config import Config
from supernet.batches import Batches
from supernet.checkpoint import Checkpoint, load_latest, save_checkpoint
from supernet.config import SupernetConfig
from supernet.data import Augmentation, DataSplits
from supernet.distributed import SingleWorld
from supernet.errors import CheckpointError, ForeignCheckpointError, SupernetConfigError
from supernet.evaluate import prepare
from supernet.extract import Subnet
from supernet.supernet import Supernet
from supernet.updates.optimizers import load_optimizer, optimizer_tensors

# A checkpoint is written after every epoch, and so often within a long one.
_CHECKPOINT_STEPS = 500

_log = logging.getLogger(__name__)


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
    folder: Path | None = None,
) -> Subnet:
    """A subnet after training it alone, with its fake quantisation, on the training split.

    Deterministic (on as many threads). What it shares with other subnets is trained in a copy.
    With a folder it may be killed at any time: the same call then goes on from its last checkpoint,
    of the last epoch or of at most 500 steps ago, and ends in the same weights.

    Args:
        supernet: Where the weights start; it stays as it is.
        config: The subnet.
        data: Only its training split is read.
        settings: How.
        augmentation: Of the training images.
        folder: Holds the checkpoints of this fine-tuning alone: when none of them can be used, or
            they are another's, they are removed with a warning. Whoever keeps the subnet removes
            the folder. None: nothing is written.

    Returns:
        The subnet, its BatchNorm recalibrated, as `supernet.prepare` makes one.

    Raises:
        SupernetConfigError: A batch is larger than the training split.
    """
    check_finetuning(settings, data)
    tuning = _Tuning(supernet, config, data, settings, augmentation)
    if folder is not None:
        tuning.resume(folder)
    while tuning.step < tuning.total:
        tuning.train_step()
        if folder is not None and tuning.is_due:
            save_checkpoint(folder, tuning.checkpoint())
    return prepare(tuning.own, config, data)


class _Tuning:
    """One fine-tuning, which knows its step and can be saved and restored.

    All randomness is a function of (seed, step), so that a checkpoint needs no generator state.
    """

    def __init__(
        self,
        supernet: Supernet,
        config: Config,
        data: DataSplits,
        settings: FinetuneConfig,
        augmentation: Augmentation,
    ) -> None:
        self.supernet, self.config = supernet, config
        self.settings, self.augmentation = settings, augmentation
        self._start()
        options = SupernetConfig(
            seed=settings.seed, batch_size=settings.batch_size, augmentation=augmentation
        )
        self.batches = Batches(data.train, options, self.own.resolution, SingleWorld())
        self.total = settings.epochs * self.batches.per_epoch

    def _start(self) -> None:
        """Begin with the supernet's weights."""
        self.own = copy.deepcopy(self.supernet)
        self.own.activate(self.config)
        weights, quantizers = self.own.weight_parameters(), self.own.quantizer_parameters()
        settings = self.settings
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in weights if p.dim() > 1],
                "peak": settings.learning_rate,
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in weights if p.dim() <= 1], "peak": settings.learning_rate},
            {"params": quantizers, "peak": settings.quantizer_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.0)
        self.step = 0

    def train_step(self) -> None:
        """Do the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * self.step / self.total))
        images, labels = self.batches.batch(self.step)
        self.own.train()
        self.optimizer.zero_grad(set_to_none=True)
        smoothing = self.settings.label_smoothing
        loss = F.cross_entropy(self.own(images), labels, label_smoothing=smoothing)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1

    @property
    def is_due(self) -> bool:
        """Whether the present step deserves a checkpoint."""
        place = self.step % self.batches.per_epoch
        return place == 0 or place % _CHECKPOINT_STEPS == 0

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from the present step."""
        tensors = {f"supernet.{n}": t for n, t in self.own.state_dict().items()}
        tensors |= {f"optimizer.{n}": t for n, t in optimizer_tensors(self.optimizer).items()}
        return Checkpoint(self.step, tensors, {"identity": self._identity})

    def resume(self, folder: Path) -> None:
        """Go on from the newest usable checkpoint in `folder`, which is emptied where none is."""
        try:
            _, problems = load_latest(folder, self._restore)
        except CheckpointError as error:
            _log.warning("%s; fine-tuning %s from the beginning", error, self.config.key)
            shutil.rmtree(folder, ignore_errors=True)
            self._start()
            return
        for problem in problems:
            _log.warning("%s; going on from an earlier checkpoint", problem)

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.state.get("identity") != self._identity:
            raise ForeignCheckpointError(f"checkpoint {checkpoint.path} is another fine-tuning's")
        parts: dict[str, dict[str, Tensor]] = {"supernet": {}, "optimizer": {}}
        self._start()
        try:
            for name, tensor in checkpoint.tensors.items():
                kind, _, rest = name.partition(".")
                parts[kind][rest] = tensor
            self.own.load_state_dict(parts["supernet"])
            load_optimizer(self.optimizer, parts["optimizer"])
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"cannot go on from {checkpoint.path}: {error!r}") from None
        self.step = checkpoint.step

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Everything that decides the result."""
        return {
            "space": self.supernet.space.key,
            "weights": _weights_digest(self.supernet),
            "config": self.config.key,
            "settings": self.settings.model_dump(mode="json"),
            "augmentation": self.augmentation.model_dump(mode="json"),
            "train": self.batches.images.fingerprint,
        }


def _weights_digest(supernet: Supernet) -> str:
    """Of the parameters; what BatchNorm has seen last is estimated anew for every subnet."""
    digest = hashlib.sha256()
    for name, parameter in supernet.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
