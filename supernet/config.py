"""Training options of a supernet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
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
    model_validator,
)

from spaces.errors import UnknownNameError
from supernet.data import Augmentation
from supernet.objectives import OBJECTIVES, DistillationConfig, ObjectiveConfig
from supernet.objectives.teacher import teacher_digest
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
_AFFINE = ("rotation", "scale", "shift", "shear")
# Options that change no weight.
_INDECISIVE = {"family", "checkpoint_every"}


def _known_quantizer(name: str) -> str:
    if name not in QUANTIZERS.names():
        raise ValueError(str(UnknownNameError(QUANTIZERS.kind, name, QUANTIZERS.names())))
    return name


class Precision(StrEnum):
    """Arithmetic of the subnets in training: float32, or bfloat16 where torch's autocast deems it
    safe. Weights, gradients, their optimiser and fake quantisation are float32."""

    FP32 = "fp32"
    BF16 = "bf16"


class SupernetConfig(BaseModel):
    """How a supernet is trained.

    The affine part of the augmentation may also stand outside it, as `rotation`, `scale`, `shift`
    and `shear`.

    Attributes:
        family: The family that the space must have; None: any.
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
        warmup_learning_rate: Peak rate of the warm-up, decayed to a twentieth of it by a cosine.
        learning_rate: Peak rate of the phase of sampled configs, decayed to zero by a cosine.
        quantizer_learning_rate: Peak rate of scales and zero points.
        weight_decay: Of weight matrices and convolutions (AdamW).
        label_smoothing: Of cross-entropies with the labels.
        augmentation: How much training images are changed at random.
        precision: Arithmetic of the subnets in training.
        checkpoint_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    family: str | None = None
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
    augmentation: Augmentation = Augmentation()
    precision: Precision = Precision.FP32
    checkpoint_every: Positive = 50

    @field_validator("teacher")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # A stored job is continued from other working folders, and by other processes.
        return None if path is None else path.absolute()

    @model_validator(mode="before")
    @classmethod
    def _affine_inside(cls, data: Any) -> Any:
        outside = [n for n in _AFFINE if n in data] if isinstance(data, Mapping) else []
        if not outside:
            return data
        inside = data.get("augmentation", {})
        if not isinstance(inside, Mapping):
            return data
        twice = [n for n in outside if n in inside]
        if twice:
            raise ValueError(f"{twice[0]!r} is given twice, also in 'augmentation'")
        rest = {n: v for n, v in data.items() if n not in outside}
        return rest | {"augmentation": {**inside, **{n: data[n] for n in outside}}}

    def decisive(self) -> dict[str, Any]:
        """The options that decide the trained weights, as JSON, with the content's hash in place of
        the teacher's folder.

        Raises:
            CheckpointError: The teacher cannot be read.
        """
        found = self.model_dump(mode="json", exclude=_INDECISIVE)
        return found | {"teacher": None if self.teacher is None else teacher_digest(self.teacher)}

    def key(self, space_key: str, data: dict[str, Any]) -> str:
        """16 hexadecimal digits that name the trained supernet of this space and data.

        Raises:
            CheckpointError: The teacher cannot be read.
        """
        text = json.dumps([self.decisive(), space_key, data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
