from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spaces.dimension import Dimension, DimensionKind
from spaces.families import Family, FamilySettings, MobileNetV3, MobileNetV3Settings, Slot
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import Granularity, LayerPrecision, QuantScheme, Symmetry
from spaces.space import SearchSpace
from supernet.config import SupernetConfig
from supernet.data import DataConfig, DataSplits, ImageSet, load_data, resize
from supernet.families import build_supernet
from supernet.supernet import Supernet
from supernet.trainer import Trainer
from supernet.training_run import train_supernet
from tests.supernet.short_run import SHORT


class PlainSettings(FamilySettings):
    resolution: tuple[int, ...] = (8, 12)
    width: tuple[int, ...] = (16, 32, 48)
    depth: tuple[int, ...] = (1, 2, 3, 4)
    expansion: tuple[int, ...] = (1, 2)
    w_bits: tuple[int, ...] = (2, 4, 8)
    a_bits: tuple[int, ...] = (4, 8)
    symmetry: tuple[str, ...] = ("symmetric", "asymmetric")


class Plain(Family):
    """Geometry alone, with every kind of dimension that samplers treat in a way of its own: 1x1
    convolutions of one width, then a classifier; bits for each, one symmetry for all."""

    name = "plain"
    settings_type = PlainSettings
    settings: PlainSettings
    input_channels = 1
    classes = 10

    def dimensions(self):
        s, kind = self.settings, DimensionKind
        found = [
            Dimension("resolution", kind.RESOLUTION, s.resolution),
            Dimension("width", kind.WIDTH, s.width),
            Dimension("depth", kind.DEPTH, s.depth),
        ]
        for j in range(max(s.depth)):
            found += [
                Dimension(f"block{j}.expansion", kind.EXPANSION, s.expansion),
                Dimension(f"block{j}.conv.w_bits", kind.W_BITS, s.w_bits),
                Dimension(f"block{j}.conv.a_bits", kind.A_BITS, s.a_bits),
            ]
        return (*found, Dimension("weight.symmetry", kind.SYMMETRY, s.symmetry))

    def slots(self):
        reads = ("resolution", "width", "weight.symmetry")
        own = ("expansion", "conv.w_bits", "conv.a_bits")
        blocks = [
            Slot(
                f"block{j}",
                (*reads, *(f"block{j}.{name}" for name in own)),
                lambda values, j=j: (self.block(values, j),),
                ("depth", j + 1),
            )
            for j in range(max(self.settings.depth))
        ]
        return (*blocks, Slot("tail", ("width",), self.tail))

    def block(self, values, j):
        width, size = int(values["width"]), int(values["resolution"])
        precision = LayerPrecision(
            QuantScheme(
                int(values[f"block{j}.conv.w_bits"]),
                Granularity.PER_CHANNEL,
                Symmetry(values["weight.symmetry"]),
                True,
            ),
            QuantScheme(
                int(values[f"block{j}.conv.a_bits"]),
                Granularity.PER_TENSOR,
                Symmetry.ASYMMETRIC,
                False,
            ),
        )
        out = width * int(values[f"block{j}.expansion"])
        site = f"block{j}.conv"
        return LayerSpec(site, Operator.CONV, width, out, size, size, precision=precision)

    def tail(self, values):
        return (LayerSpec("classifier", Operator.LINEAR, int(values["width"]), 10),)


@pytest.fixture(scope="session")
def plain():
    """Settings -> space."""
    return lambda **settings: SearchSpace("plain", Plain(PlainSettings(**settings)))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_space() -> SearchSpace:
    settings = MobileNetV3Settings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (8, 12),
            "stem": (8, 16),
            "stages": (
                {
                    "width": (8, 16, 24),
                    "depth": (1, 2),
                    "expansion": (2, 4),
                    "kernel": (3, 5, 7),
                    "activation": "relu",
                },
                {
                    "width": (16, 32),
                    "depth": (1, 2),
                    "expansion": (2, 4),
                    "kernel": (3, 5),
                    "stride": 2,
                },
            ),
            "head": (24, 48),
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("tiny", MobileNetV3(settings))


def small_mobilenet(schemes: tuple[str, ...], elastic: bool = True) -> SearchSpace:
    """A space in which a step takes a few milliseconds."""
    settings = MobileNetV3Settings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (8,),
            "stem": (16,),
            "stages": (
                {
                    "width": (16, 24, 32) if elastic else (16,),
                    "depth": (1, 2) if elastic else (1,),
                    "expansion": (2, 3, 4) if elastic else (4,),
                    "kernel": (3,),
                    "squeeze_excite": (0,),
                    "activation": "relu",
                },
            ),
            "head": (32, 48, 64) if elastic else (64,),
            "schemes": schemes,
        }
    )
    return SearchSpace("small", MobileNetV3(settings))


@pytest.fixture(scope="session")
def small_space() -> SearchSpace:
    """Elastic architecture, every layer in float32 or 2, 4 or 8 bits."""
    return small_mobilenet(("fp32", "w2a8", "w4a8", "w8a8"))


@pytest.fixture(scope="session")
def small_float_space() -> SearchSpace:
    """Elastic architecture in float32."""
    return small_mobilenet(("fp32",))


@pytest.fixture(scope="session")
def small_bits_space() -> SearchSpace:
    """One architecture, every layer of 2, 3, 4 or 8 bits."""
    return small_mobilenet(("w2a8", "w3a8", "w4a8", "w8a8"), elastic=False)


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    return load_data(DataConfig(seed=0))


@pytest.fixture(scope="session")
def calibrated(tiny_space: SearchSpace, digits: DataSplits) -> Supernet:
    """Random weights, random kernel transforms and gammas of both signs, calibrated quantisers."""
    torch.manual_seed(0)
    supernet = build_supernet(tiny_space)
    with torch.no_grad():
        for norm in supernet.norms():
            norm.weight.mul_(torch.randn_like(norm.weight).sign())
            norm.bias.normal_(std=0.2)
        for name, parameter in supernet.named_parameters():
            if "kernel_transforms" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = tiny_space.max_config()
    images = resize(digits.train.images[:128], int(config["resolution"]))
    supernet.calibrate([(config, images)])
    return supernet


@pytest.fixture(scope="session")
def quick_config() -> SupernetConfig:
    return SupernetConfig(
        warmup_epochs=6,
        epochs=4,
        batch_size=64,
        random_configs=1,
        weight_decay=0.02,
        checkpoint_every=10,
    )


@pytest.fixture(scope="session")
def warm(tiny_space: SearchSpace, digits: DataSplits, quick_config: SupernetConfig) -> Trainer:
    """A run at the end of its warm-up: the largest network is trained, nothing is reordered."""
    trainer = Trainer(tiny_space, quick_config, digits)
    while trainer.step < trainer.warmup_steps:
        trainer.train_step()
    return trainer


@pytest.fixture(scope="session")
def trained(
    warm: Trainer, tiny_space: SearchSpace, digits: DataSplits, quick_config: SupernetConfig
) -> Supernet:
    trainer = Trainer(tiny_space, quick_config, digits)
    trainer.restore(warm.checkpoint())
    while trainer.step < trainer.total_steps:
        trainer.train_step()
    return trainer.supernet


WARMUP_EPOCHS, TUNING_EPOCHS = 3, 4


@pytest.fixture(scope="session")
def plainly_trained(small_float_space: SearchSpace, digits: DataSplits) -> Supernet:
    """Only its largest network was trained, for all the epochs that `fine_tune` takes."""
    config = SupernetConfig(warmup_epochs=WARMUP_EPOCHS + TUNING_EPOCHS, epochs=1)
    trainer = Trainer(small_float_space, config, digits)
    while trainer.step < trainer.warmup_steps:
        trainer.train_step()
    return trainer.supernet


@pytest.fixture(scope="session")
def fine_tune(small_float_space: SearchSpace, digits: DataSplits) -> Callable[..., Supernet]:
    """Options -> a supernet trained with them, after the warm-up that all share."""
    begun = SupernetConfig(warmup_epochs=WARMUP_EPOCHS, epochs=TUNING_EPOCHS)
    first = Trainer(small_float_space, begun, digits)
    while first.step < first.warmup_steps:
        first.train_step()
    warm = {name: tensor.clone() for name, tensor in first.supernet.state_dict().items()}

    def train(**options: object) -> Supernet:
        config = SupernetConfig.model_validate({**begun.model_dump(), **options})
        trainer = Trainer(small_float_space, config, digits)
        trainer.supernet.load_state_dict(warm)
        trainer.step = trainer.warmup_steps
        while trainer.step < trainer.total_steps:
            trainer.train_step()
        return trainer.supernet

    return train


@pytest.fixture(scope="session")
def few(digits) -> DataSplits:
    part = ImageSet(digits.train.images[:160], digits.train.labels[:160])
    return DataSplits(part, digits.selection, digits.report, digits.classes)


@pytest.fixture(scope="session")
def uninterrupted(tiny_space, few):
    trainer = Trainer(tiny_space, SHORT, few)
    losses = [trainer.train_step() for _ in range(trainer.total_steps)]
    return trainer, losses


@pytest.fixture(scope="session")
def finished(tiny_space, few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train_supernet(tiny_space, SHORT, few, folder)
    return folder
