"""The ResNet family (He et al. 2016, "Deep Residual Learning for Image Recognition").

Stem, stages of basic or bottleneck blocks, global pooling, classifier. As in once-for-all's ResNet
(Cai et al. 2020) resolution, the widths of stem and stages, depth, and the width inside a block as
a share of its stage's are elastic; here the kernel of a block's spatial convolutions, the bits of
every convolution but the stem and of the classifier, and the form of their quantisation are
dimensions of the same space. The stem stays float32.

The stride of a bottleneck is that of its spatial convolution, as in torchvision. The first block
of a stage projects its shortcut whatever the widths are (the published network does so where they
differ), so that depths alone decide which layers exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.dimension import Choice, Dimension, DimensionKind
from spaces.families.base import FAMILIES, FamilySettings, Slot, Values
from spaces.families.image import (
    CHANNEL_MULTIPLE,
    Channels,
    Counts,
    ImageFamily,
    ImageSettings,
    Kernels,
    Stride,
    halved,
    map_size,
)
from spaces.families.quantisation import form_dimensions, layer_dimensions
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import LayerPrecision, site_precision

BlockKind = Literal["basic", "bottleneck"]

# Of a small image's stem; of an ImageNet stem, its convolution and then its pooling.
_SMALL_STRIDES, _IMAGENET_STRIDES = (1,), (2, 2)


class StageSettings(FamilySettings):
    """Choices of one stage; its first block has the stride.

    Attributes:
        width: Channels that its blocks write.
        depth: Numbers of blocks.
        expansion: Width between the convolutions of a block, in percent of the stage's: about 100
            for basic blocks, 25 for bottlenecks. The result is rounded to a multiple of 8.
        kernel: Sides of the spatial convolutions' windows, in pixels.
        stride: 1 or 2.
    """

    width: Channels
    depth: Counts
    expansion: Counts
    kernel: Kernels = (3,)
    stride: Stride = 1

    @model_validator(mode="after")
    def _distinct_widths(self) -> StageSettings:
        for width in self.width:
            inner = [inner_width(width, expansion) for expansion in self.expansion]
            if len(set(inner)) < len(inner):
                raise ValueError(
                    f"expansions {self.expansion} of width {width} give {inner} channels: two "
                    "choices must not be one network"
                )
        return self


class ResNetSettings(ImageSettings):
    """Choices of a whole ResNet space.

    Attributes:
        block: `basic`, two spatial convolutions; `bottleneck`, one between two of 1x1.
        imagenet_stem: Whether a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2
            begin the network, and not a 3x3 convolution of stride 1 for small images.
        stem: Channels of the stem.
        stages: In the order of execution.
    """

    block: BlockKind
    imagenet_stem: bool = False
    stem: Channels
    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)]


def inner_width(width: int, expansion: int) -> int:
    """Channels between the convolutions of a block, `expansion` percent of its stage's width."""
    multiples = round(width * expansion / (100 * CHANNEL_MULTIPLE))
    return max(1, multiples) * CHANNEL_MULTIPLE


def block_layers(
    site: str,
    kind: BlockKind,
    in_channels: int,
    out_channels: int,
    in_size: int,
    kernel: int,
    stride: int,
    expansion: int,
    projects: bool,
    values: Values,
) -> tuple[LayerSpec, ...]:
    """The layers of one block: `projection` where it `projects`, then `conv1`, `conv2`, ..."""
    inner = inner_width(out_channels, expansion)
    # (inputs, outputs, kernel, stride)
    windows = [(in_channels, inner, kernel, stride), (inner, out_channels, kernel, 1)]
    if kind == "bottleneck":
        windows = [
            (in_channels, inner, 1, 1),
            (inner, inner, kernel, stride),
            (inner, out_channels, 1, 1),
        ]
    layers = []
    if projects:
        layers.append(
            LayerSpec(
                f"{site}.projection",
                Operator.CONV,
                in_channels,
                out_channels,
                in_size,
                halved(in_size, stride),
                stride=stride,
                precision=_precision(values, f"{site}.projection"),
                shortcut=True,
            )
        )
    for name, (inputs, outputs, side, step) in zip(_convolutions(kind), windows, strict=True):
        last = name == _convolutions(kind)[-1]
        out_size = halved(in_size, step)
        layers.append(
            LayerSpec(
                f"{site}.{name}",
                Operator.CONV,
                inputs,
                outputs,
                in_size,
                out_size,
                side,
                step,
                activation=Activation.NONE if last else Activation.RELU,
                precision=_precision(values, f"{site}.{name}"),
                residual=last,
                residual_activation=Activation.RELU if last else Activation.NONE,
            )
        )
        in_size = out_size
    return tuple(layers)


def _convolutions(kind: BlockKind) -> tuple[str, ...]:
    return ("conv1", "conv2") if kind == "basic" else ("conv1", "conv2", "conv3")


def _precision(values: Values, site: str) -> LayerPrecision:
    # Whatever is quantised comes behind a ReLU.
    return site_precision(values, site, nonnegative=True)


@FAMILIES.register("resnet")
class ResNet(ImageFamily):
    """Dimensions and layers of a ResNet space."""

    name = "resnet"
    settings_type = ResNetSettings
    settings: ResNetSettings

    def dimensions(self) -> tuple[Dimension, ...]:
        settings = self.settings
        found: list[Dimension] = []

        def add(name: str, kind: DimensionKind, choices: Sequence[Choice]) -> None:
            found.append(Dimension(name, kind, tuple(choices)))

        add("resolution", DimensionKind.RESOLUTION, settings.resolution)
        add("stem.width", DimensionKind.WIDTH, settings.stem)
        for i, stage in enumerate(settings.stages, start=1):
            add(f"stage{i}.width", DimensionKind.WIDTH, stage.width)
            add(f"stage{i}.depth", DimensionKind.DEPTH, stage.depth)
            for j in range(max(stage.depth)):
                site = f"stage{i}.block{j}"
                add(f"{site}.expansion", DimensionKind.EXPANSION, stage.expansion)
                add(f"{site}.kernel", DimensionKind.KERNEL, stage.kernel)
                for layer in self._quantised(site, j):
                    found += layer_dimensions(settings, layer)
        found += layer_dimensions(settings, "classifier")
        found += form_dimensions(settings)
        return tuple(found)

    def slots(self) -> tuple[Slot, ...]:
        """Stem, one slot a block, and the tail; each reads the resolution and its own widths."""
        slots = [Slot("stem", ("resolution", "stem.width"), self._stem)]
        width = "stem.width"
        strides = _IMAGENET_STRIDES if self.settings.imagenet_stem else _SMALL_STRIDES
        for i, stage in enumerate(self.settings.stages, start=1):
            for j in range(max(stage.depth)):
                slots.append(self._block_slot(i, j, width, strides))
                width = f"stage{i}.width"
                strides = (*strides, stage.stride if j == 0 else 1)
        slots.append(self._tail_slot(width, strides))
        return tuple(slots)

    def _quantised(self, site: str, j: int) -> tuple[str, ...]:
        """The layers of a block."""
        projection = ("projection",) if j == 0 else ()
        names = (*projection, *_convolutions(self.settings.block))
        return tuple(f"{site}.{name}" for name in names)

    def _stem(self, values: Values) -> tuple[LayerSpec, ...]:
        resolution, width = int(values["resolution"]), int(values["stem.width"])
        kernel, stride = (7, 2) if self.settings.imagenet_stem else (3, 1)
        size = halved(resolution, stride)
        convolution = LayerSpec(
            "stem",
            Operator.CONV,
            self.settings.input_channels,
            width,
            resolution,
            size,
            kernel,
            stride,
            activation=Activation.RELU,
        )
        if not self.settings.imagenet_stem:
            return (convolution,)
        pool = LayerSpec(
            "stem_pool", Operator.MAX_POOL, width, width, size, halved(size, 2), kernel=3, stride=2
        )
        return convolution, pool

    def _block_slot(self, i: int, j: int, width_in: str, strides: tuple[int, ...]) -> Slot:
        stage, site, width_out = (
            self.settings.stages[i - 1],
            f"stage{i}.block{j}",
            f"stage{i}.width",
        )

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            return block_layers(
                site,
                self.settings.block,
                int(values[width_in]),
                int(values[width_out]),
                map_size(values, strides),
                int(values[f"{site}.kernel"]),
                stage.stride if j == 0 else 1,
                int(values[f"{site}.expansion"]),
                j == 0,
                values,
            )

        widths = dict.fromkeys((width_in, width_out))
        own = (
            f"{site}.expansion",
            f"{site}.kernel",
            *self._precision_reads(*self._quantised(site, j)),
        )
        reads = ("resolution", *widths, *own)
        return Slot(site, reads, layers, depth=(f"stage{i}.depth", j + 1))

    def _tail_slot(self, width_in: str, strides: tuple[int, ...]) -> Slot:
        def layers(values: Values) -> tuple[LayerSpec, ...]:
            size, width = map_size(values, strides), int(values[width_in])
            return (
                LayerSpec("pool", Operator.GLOBAL_POOL, width, width, size, 1),
                LayerSpec(
                    "classifier",
                    Operator.LINEAR,
                    width,
                    self.settings.classes,
                    precision=_precision(values, "classifier"),
                ),
            )

        reads = ("resolution", width_in, *self._precision_reads("classifier"))
        return Slot("tail", reads, layers)
