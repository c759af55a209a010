"""The MobileNetV3 family for small images (Howard et al. 2019, "Searching for MobileNetV3").

Stem convolution, stages of inverted residual blocks (expand, depthwise, optional
squeeze-and-excite, project), head convolution, global pooling, classifier. As in once-for-all
(Cai et al. 2020) resolution, depth, width, expansion and kernel are elastic; here structured
channel pruning of stages, stem and head, squeeze-and-excite, the bits of every convolution but the
stem and of the classifier, and the form of their quantisation are dimensions of the same space. The
stem, and the weights of squeeze-and-excite, stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

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

SQUEEZE_RATIO = 4
_QUANTISED = ("expand", "depthwise", "project")
_TAIL = ("head", "classifier")


class StageSettings(FamilySettings):
    """Choices of one stage; its first block has the stride. An expansion of 1 and no other one
    makes blocks without an expand layer, as the first of MobileNetV3 is."""

    width: Channels
    depth: Counts
    expansion: Counts
    kernel: Kernels
    squeeze_excite: tuple[Annotated[int, Field(ge=0, le=1)], ...] = (0, 1)
    stride: Stride = 1
    activation: Activation = Activation.HARDSWISH

    @model_validator(mode="after")
    def _expands_or_not(self) -> StageSettings:
        if self.expands and min(self.expansion) < 2:
            raise ValueError(
                f"expansion {list(self.expansion)}: must be 2 or more, or 1 alone; whether a block "
                "has an expand layer is not elastic"
            )
        return self

    @property
    def expands(self) -> bool:
        """Whether its blocks have an expand layer."""
        return self.expansion != (1,)

    @property
    def quantised(self) -> tuple[str, ...]:
        """The layers of a block that have bits."""
        return _QUANTISED if self.expands else _QUANTISED[1:]


class MobileNetV3Settings(ImageSettings):
    """Choices of a whole MobileNetV3 space."""

    stem: Channels
    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)]
    head: Channels


def _squeezed(channels: int) -> int:
    """Hidden width of squeeze-and-excite: a quarter, rounded to the channel multiple."""
    multiples = round(channels / SQUEEZE_RATIO / CHANNEL_MULTIPLE)
    return max(1, multiples) * CHANNEL_MULTIPLE


def block_layers(
    site: str,
    in_channels: int,
    out_channels: int,
    in_size: int,
    kernel: int,
    stride: int,
    expansion: int,
    squeeze_excite: bool,
    activation: Activation,
    values: Values,
) -> tuple[LayerSpec, ...]:
    """The layers of one inverted residual block; without `expand` where the expansion is 1.

    A squeeze-and-excite layer computes in float32, but reads u8 when the following projection is
    an integer layer, so that the tensor between them is stored once, in the projection's dtype.
    """
    hidden = in_channels * expansion
    out_size = halved(in_size, stride)
    # The gate of squeeze-and-excite is never negative either.
    nonnegative = activation is Activation.RELU
    project = site_precision(values, f"{site}.project", nonnegative=nonnegative)
    layers = []
    if expansion > 1:
        layers.append(
            LayerSpec(
                f"{site}.expand",
                Operator.CONV,
                in_channels,
                hidden,
                in_size,
                in_size,
                activation=activation,
                precision=site_precision(values, f"{site}.expand"),
            )
        )
    layers.append(
        LayerSpec(
            f"{site}.depthwise",
            Operator.DEPTHWISE_CONV,
            hidden,
            hidden,
            in_size,
            out_size,
            kernel,
            stride,
            groups=hidden,
            activation=activation,
            precision=site_precision(values, f"{site}.depthwise", nonnegative=nonnegative),
        )
    )
    if squeeze_excite:
        layers.append(
            LayerSpec(
                f"{site}.se",
                Operator.SQUEEZE_EXCITE,
                hidden,
                hidden,
                out_size,
                out_size,
                precision=LayerPrecision(None, project.activation),
                hidden_channels=_squeezed(hidden),
            )
        )
    layers.append(
        LayerSpec(
            f"{site}.project",
            Operator.CONV,
            hidden,
            out_channels,
            out_size,
            out_size,
            precision=project,
            residual=stride == 1 and in_channels == out_channels,
        )
    )
    return tuple(layers)


@FAMILIES.register("mobilenetv3")
class MobileNetV3(ImageFamily):
    """Dimensions and layers of a MobileNetV3 space."""

    name = "mobilenetv3"
    settings_type = MobileNetV3Settings
    settings: MobileNetV3Settings

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
                add(f"{site}.se", DimensionKind.SQUEEZE_EXCITE, stage.squeeze_excite)
                for layer in stage.quantised:
                    found += layer_dimensions(settings, f"{site}.{layer}")
        add("head.width", DimensionKind.WIDTH, settings.head)
        for layer in _TAIL:
            found += layer_dimensions(settings, layer)
        found += form_dimensions(settings)
        return tuple(found)

    def slots(self) -> tuple[Slot, ...]:
        """Stem, one slot a block, and the tail; each reads the resolution and its own widths."""
        slots = [Slot("stem", ("resolution", "stem.width"), self._stem)]
        width, strides = "stem.width", [2]
        for i, stage in enumerate(self.settings.stages, start=1):
            for j in range(max(stage.depth)):
                slots.append(self._block_slot(i, j, width, tuple(strides)))
                width = f"stage{i}.width"
                strides.append(stage.stride if j == 0 else 1)
        slots.append(self._tail_slot(width, tuple(strides)))
        return tuple(slots)

    def _stem(self, values: Values) -> tuple[LayerSpec, ...]:
        resolution = int(values["resolution"])
        return (
            LayerSpec(
                "stem",
                Operator.CONV,
                self.settings.input_channels,
                int(values["stem.width"]),
                resolution,
                halved(resolution, 2),
                kernel=3,
                stride=2,
                activation=Activation.HARDSWISH,
            ),
        )

    def _block_slot(self, i: int, j: int, width_in: str, strides: tuple[int, ...]) -> Slot:
        stage, site, width_out = (
            self.settings.stages[i - 1],
            f"stage{i}.block{j}",
            f"stage{i}.width",
        )

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            return block_layers(
                site,
                int(values[width_in]),
                int(values[width_out]),
                map_size(values, strides),
                int(values[f"{site}.kernel"]),
                stage.stride if j == 0 else 1,
                int(values[f"{site}.expansion"]),
                bool(values[f"{site}.se"]),
                stage.activation,
                values,
            )

        widths = dict.fromkeys((width_in, width_out))
        own = (f"{site}.{name}" for name in ("expansion", "kernel", "se"))
        bits = self._precision_reads(*(f"{site}.{layer}" for layer in stage.quantised))
        reads = ("resolution", *widths, *own, *bits)
        return Slot(site, reads, layers, depth=(f"stage{i}.depth", j + 1))

    def _tail_slot(self, width_in: str, strides: tuple[int, ...]) -> Slot:
        def layers(values: Values) -> tuple[LayerSpec, ...]:
            size, width = map_size(values, strides), int(values["head.width"])
            return (
                LayerSpec(
                    "head",
                    Operator.CONV,
                    int(values[width_in]),
                    width,
                    size,
                    size,
                    activation=Activation.HARDSWISH,
                    precision=site_precision(values, "head"),
                ),
                LayerSpec("pool", Operator.GLOBAL_POOL, width, width, size, 1),
                LayerSpec(
                    "classifier",
                    Operator.LINEAR,
                    width,
                    self.settings.classes,
                    precision=site_precision(values, "classifier"),
                ),
            )

        reads = ("resolution", width_in, "head.width", *self._precision_reads(*_TAIL))
        return Slot("tail", reads, layers)
