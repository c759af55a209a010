"""Training options of a supernet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    field_validator,
)

from spaces.errors import UnknownNameError
from supernet.data import Augmentation
from supernet.objectives import OBJECTIVES, DistillationConfig, ObjectiveConfig
from supernet.plugin import read_options
from supernet.quantizers import PER_FORM, QUANTIZERS
from supernet.regularisers import REGULARIZERS, RegularizerConfig
from supernet.samplers import SAMPLERS, SamplerConfig, SandwichConfig
from supernet.updates import UPDATES, AccumulateConfig, UpdateConfig

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Sampler = Annotated[SerializeAsAny[SamplerConfig], BeforeValidator(read_options(SAMPLERS))]
Objective = Annotated[SerializeAsAny[ObjectiveConfig], BeforeValidator(read_options(OBJECTIVES))]
Update = Annotated[SerializeAsAny[UpdateConfig], BeforeValidator(read_options(UPDATES))]
Regularizer = Annotated[
    SerializeAsAny[RegularizerConfig], BeforeValidator(read_options(REGULARIZERS))
]


def _known_quantizer(name: str) -> str:
    if name not in QUANTIZERS.names():
        raise ValueError(str(UnknownNameError(QUANTIZERS.kind, name, QUANTIZERS.names())))
    return name


class SupernetConfig(BaseModel):
    """How a supernet is trained.

    Attributes:
        seed: Decides initial weights, batches, augmentation and sampled configs; below 2**31.
        warmup_epochs: Epochs of the largest network alone, in float32.
        epochs: Epochs of sampled configs.
        batch_size: Images a step.
        sampler: Which configs a step trains: a name in `SAMPLERS`, with its settings.
        objective: What each of them learns: a name in `OBJECTIVES`, with its settings.
        update: How their gradients change the weights: a name in `UPDATES`, with its settings.
        quantizer: What the forms of a quantiser share: a name in `QUANTIZERS`.
        regularizer: A loss of the weights: a name in `REGULARIZERS`, with its settings.
        teacher: Folder of a stored subnet or supernet from which configs learn. Made absolute.
        random_configs: Random configs a step, besides those that the sampler always has.
        warmup_learning_rate: Peak rate of the warm-up, decayed to its tenth by a cosine.
        learning_rate: Peak rate of the phase of sampled configs, decayed to zero by a cosine.
        quantizer_learning_rate: Peak rate of scales and zero points.
        weight_decay: Of weight matrices and convolutions (AdamW).
        label_smoothing: Of cross-entropies with the labels.
        rotation: Largest random rotation, degrees.
        scale: Largest random relative change of size.
        shift: Largest random shift, share of the image.
        shear: Largest random shear, tangent of the angle.
        checkpoint_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    warmup_epochs: Positive = 12
    epochs: Positive = 28
    batch_size: Annotated[int, Field(ge=8)] = 64
    sampler: Sampler = SandwichConfig()
    objective: Objective = DistillationConfig()
    update: Update = AccumulateConfig()
    quantizer: Annotated[str, AfterValidator(_known_quantizer)] = PER_FORM
    regularizer: Regularizer | None = None
    teacher: Path | None = None
    random_configs: Positive = 2
    warmup_learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    learning_rate: Annotated[float, Field(gt=0)] = 8e-3
    quantizer_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Share = 0.05
    rotation: Annotated[float, Field(ge=0, le=180)] = 12.0
    scale: Share = 0.12
    shift: Share = 0.1
    shear: Share = 0.12
    checkpoint_every: Positive = 50

    @field_validator("teacher")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # A stored job is continued from other working folders, and by other processes.
        return None if path is None else path.absolute()

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation's strength."""
        return Augmentation(self.rotation, self.scale, self.shift, self.shear)

    def key(self, space_key: str, data: dict[str, Any]) -> str:
        """16 hexadecimal digits that name the trained supernet of this space and data."""
        options = self.model_dump(mode="json", exclude={"checkpoint_every"})
        text = json.dumps([options, space_key, data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
