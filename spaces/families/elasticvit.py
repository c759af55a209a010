"""The ElasticViT family: convolution stages, then transformer stages.

After Tang et al. 2023, "ElasticViT: Conflict-aware Supernet Training for Deploying Fast Vision
Transformer on Diverse Mobile Devices".

Stem: a convolution of stride 2 and inverted residual blocks of expansion 1. Convolution stages are
inverted residual blocks. A transformer stage begins with an inverted residual block with
squeeze-and-excite that may shrink the map; its transformer blocks are attention and MLP on the
pixels of the map, all linear layers being 1x1 convolutions. Head: a 1x1 convolution to a multiple
of the last width, global pooling, one more linear layer, classifier. Widths, depths, expansions,
kernels, MLP ratios and value scales (channels of a value over those of a query) are elastic and
shared by the blocks of a stage; a head has 16 channels, so that a transformer stage's width is
chosen by its heads.

Unlike in the published code, normalisation is BatchNorm unless LayerNorm is asked for in the
transformer blocks (BatchNorm is an option there, and as in LeViT, Graham et al. 2021, costs nothing
once folded), position biases are indexed by |dy|, |dx| as in LeViT, and blocks that change the
shape of the map have no shortcut. The bits of every convolution but the
first, and of the linear layers, are dimensions of the same space; attention itself computes in
float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from spaces.dimension import Choice, Dimension, DimensionKind
from spaces.families.base import FAMILIES, FamilySettings, Slot, Values
from spaces.families.image import (
    Channels,
    Counts,
    ImageFamily,
    ImageSettings,
    Kernels,
    Positive,
    Stride,
    halved,
    map_size,
)
from spaces.families.mobilenetv3 import block_layers
from spaces.families.quantisation import form_dimensions, layer_dimensions
from spaces.families.transformer import HEAD_CHANNELS, Norm, attention_layers, mlp_layers
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import site_precision

ENTRY_KERNEL = 3
HARDSWISH = Activation.HARDSWISH
TAIL = ("head", "feature", "classifier")
"""The layers that can be quantised behind the last stage."""


class StemSettings(FamilySettings):
    """Choices of the stem: its blocks follow a convolution of stride 2."""

    width: Channels
    depth: Counts
    kernel: Kernels


class ConvStageSettings(FamilySettings):
    """Choices of a convolution stage; its first block has the stride."""

    width: Channels
    depth: Counts
    expansion: Counts
    kernel: Kernels
    squeeze_excite: bool = False
    stride: Stride = 2


class TransformerStageSettings(FamilySettings):
    """Choices of a transformer stage; its entry has the stride."""

    heads: Counts
    depth: Counts
    mlp_ratio: Counts
    value_scale: Counts
    entry_expansion: Annotated[int, Field(ge=2)] = 6
    stride: Stride = 2


class ElasticViTSettings(ImageSettings):
    """Choices of a whole ElasticViT space.

    `head_expansion` is the width of the head over that of the last stage, `feature_width` that of
    the linear layer before the classifier. `norm` is the normalisation of the transformer blocks;
    all else has BatchNorm.
    """

    stem: StemSettings
    conv_stages: Annotated[tuple[ConvStageSettings, ...], Field(min_length=1)]
    transformer_stages: Annotated[tuple[TransformerStageSettings, ...], Field(min_length=1)]
    head_expansion: Positive = 6
    feature_width: Positive
    # A space is known by its settings: those of before there was a choice must not show it.
    norm: Annotated[Norm, Field(exclude_if=lambda norm: norm == "batch")] = "batch"

    @model_validator(mode="after")
    def _expanding(self) -> ElasticViTSettings:
        if any(e < 2 for stage in self.conv_stages for e in stage.expansion):
            raise ValueError("expansion must be at least 2: only the stem has blocks without it")
        return self


@FAMILIES.register("elasticvit")
class ElasticViT(ImageFamily):
    """Dimensions and layers of an ElasticViT space."""

    name = "elasticvit"
    settings_type = ElasticViTSettings
    settings: ElasticViTSettings

    def _conv_stages(self) -> Iterator[tuple[str, ConvStageSettings]]:
        for i, stage in enumerate(self.settings.conv_stages, start=1):
            yield f"stage{i}", stage

    def _transformer_stages(self) -> Iterator[tuple[str, TransformerStageSettings]]:
        first = len(self.settings.conv_stages) + 1
        for i, stage in enumerate(self.settings.transformer_stages, start=first):
            yield f"stage{i}", stage

    def dimensions(self) -> tuple[Dimension, ...]:
        settings = self.settings
        found: list[Dimension] = []

        def add(name: str, kind: DimensionKind, choices: Sequence[Choice]) -> None:
            found.append(Dimension(name, kind, tuple(choices)))

        def add_bits(*sites: str) -> None:
            for site in sites:
                found.extend(layer_dimensions(settings, site))

        add("resolution", DimensionKind.RESOLUTION, settings.resolution)
        add("stem.width", DimensionKind.WIDTH, settings.stem.width)
        add("stem.depth", DimensionKind.DEPTH, settings.stem.depth)
        add("stem.kernel", DimensionKind.KERNEL, settings.stem.kernel)
        for j in range(max(settings.stem.depth)):
            add_bits(*_inverted_residual(f"stem.block{j}")[1:])
        for name, stage in self._conv_stages():
            add(f"{name}.width", DimensionKind.WIDTH, stage.width)
            add(f"{name}.depth", DimensionKind.DEPTH, stage.depth)
            add(f"{name}.expansion", DimensionKind.EXPANSION, stage.expansion)
            add(f"{name}.kernel", DimensionKind.KERNEL, stage.kernel)
            for j in range(max(stage.depth)):
                add_bits(*_inverted_residual(f"{name}.block{j}"))
        for name, transformer in self._transformer_stages():
            add(f"{name}.heads", DimensionKind.HEADS, transformer.heads)
            add(f"{name}.depth", DimensionKind.DEPTH, transformer.depth)
            add(f"{name}.mlp_ratio", DimensionKind.FFN, transformer.mlp_ratio)
            add(f"{name}.value_scale", DimensionKind.EXPANSION, transformer.value_scale)
            add_bits(*_inverted_residual(f"{name}.entry"))
            for j in range(max(transformer.depth)):
                add_bits(*_transformer(f"{name}.block{j}"))
        add_bits(*TAIL)
        found += form_dimensions(settings)
        return tuple(found)

    def slots(self) -> tuple[Slot, ...]:
        """First convolution, one slot a block, and the tail; each reads its own dimensions."""
        settings = self.settings
        slots = [Slot("stem.conv", ("resolution", "stem.width"), self._stem)]
        width = "stem.width"
        strides: tuple[int, ...] = (2,)
        for j in range(max(settings.stem.depth)):
            slots.append(self._stem_slot(j, strides))
        for name, stage in self._conv_stages():
            for j in range(max(stage.depth)):
                slots.append(self._conv_slot(name, stage, j, width, strides))
                width = f"{name}.width"
                if j == 0:
                    strides = (*strides, stage.stride)
        for name, transformer in self._transformer_stages():
            slots.append(self._entry_slot(name, transformer, width, strides))
            width, strides = f"{name}.heads", (*strides, transformer.stride)
            slots += [
                self._transformer_slot(name, j, strides) for j in range(max(transformer.depth))
            ]
        slots.append(self._tail_slot(width, strides))
        return tuple(slots)

    def _stem(self, values: Values) -> tuple[LayerSpec, ...]:
        resolution = int(values["resolution"])
        return (
            LayerSpec(
                "stem.conv",
                Operator.CONV,
                self.settings.input_channels,
                int(values["stem.width"]),
                resolution,
                halved(resolution, 2),
                kernel=3,
                stride=2,
                activation=HARDSWISH,
            ),
        )

    def _stem_slot(self, j: int, strides: tuple[int, ...]) -> Slot:
        site = f"stem.block{j}"

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            width, size = int(values["stem.width"]), map_size(values, strides)
            kernel = int(values["stem.kernel"])
            return block_layers(site, width, width, size, kernel, 1, 1, False, HARDSWISH, values)

        shared = ("resolution", "stem.width", "stem.kernel")
        reads = (*shared, *self._precision_reads(*_inverted_residual(site)[1:]))
        return Slot(site, reads, layers, depth=("stem.depth", j + 1))

    def _conv_slot(
        self, name: str, stage: ConvStageSettings, j: int, width_in: str, strides: tuple[int, ...]
    ) -> Slot:
        site, width_out = f"{name}.block{j}", f"{name}.width"

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            return block_layers(
                site,
                int(values[width_in]),
                int(values[width_out]),
                map_size(values, strides),
                int(values[f"{name}.kernel"]),
                stage.stride if j == 0 else 1,
                int(values[f"{name}.expansion"]),
                stage.squeeze_excite,
                HARDSWISH,
                values,
            )

        shared = dict.fromkeys((width_in, width_out, f"{name}.kernel", f"{name}.expansion"))
        reads = ("resolution", *shared, *self._precision_reads(*_inverted_residual(site)))
        return Slot(site, reads, layers, depth=(f"{name}.depth", j + 1))

    def _entry_slot(
        self, name: str, stage: TransformerStageSettings, width_in: str, strides: tuple[int, ...]
    ) -> Slot:
        site, heads = f"{name}.entry", f"{name}.heads"

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            return block_layers(
                site,
                _channels(values, width_in),
                _channels(values, heads),
                map_size(values, strides),
                ENTRY_KERNEL,
                stage.stride,
                stage.entry_expansion,
                True,
                HARDSWISH,
                values,
            )

        bits = self._precision_reads(*_inverted_residual(site))
        reads = ("resolution", width_in, heads, *bits)
        return Slot(site, reads, layers)

    def _transformer_slot(self, name: str, j: int, strides: tuple[int, ...]) -> Slot:
        site = f"{name}.block{j}"
        attention, mlp, norm = f"{site}.attention", f"{site}.mlp", self.settings.norm

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            heads, size = int(values[f"{name}.heads"]), map_size(values, strides)
            width, scale = heads * HEAD_CHANNELS, int(values[f"{name}.value_scale"])
            hidden = width * int(values[f"{name}.mlp_ratio"])
            return (
                *attention_layers(attention, width, heads, scale, size, values, norm),
                *mlp_layers(mlp, width, hidden, size, values, norm),
            )

        shared = (f"{name}.heads", f"{name}.value_scale", f"{name}.mlp_ratio")
        own = self._precision_reads(*_transformer(site))
        return Slot(site, ("resolution", *shared, *own), layers, depth=(f"{name}.depth", j + 1))

    def _tail_slot(self, width_in: str, strides: tuple[int, ...]) -> Slot:
        settings = self.settings

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            channels, size = _channels(values, width_in), map_size(values, strides)
            width, features = channels * settings.head_expansion, settings.feature_width
            return (
                LayerSpec(
                    "head",
                    Operator.CONV,
                    channels,
                    width,
                    size,
                    size,
                    activation=HARDSWISH,
                    precision=site_precision(values, "head"),
                ),
                LayerSpec("pool", Operator.GLOBAL_POOL, width, width, size, 1),
                LayerSpec(
                    "feature",
                    Operator.LINEAR,
                    width,
                    features,
                    activation=HARDSWISH,
                    precision=site_precision(values, "feature"),
                ),
                LayerSpec(
                    "classifier",
                    Operator.LINEAR,
                    features,
                    settings.classes,
                    precision=site_precision(values, "classifier"),
                ),
            )

        return Slot("tail", ("resolution", width_in, *self._precision_reads(*TAIL)), layers)


def _inverted_residual(site: str) -> tuple[str, ...]:
    """The layers of an inverted residual that can be quantised."""
    return tuple(f"{site}.{layer}" for layer in ("expand", "depthwise", "project"))


def _transformer(site: str) -> tuple[str, ...]:
    """The layers of a transformer block that can be quantised."""
    layers = ("attention.qkv", "attention.project", "mlp.expand", "mlp.project")
    return tuple(f"{site}.{layer}" for layer in layers)


def _channels(values: Values, width: str) -> int:
    """Channels of a residual stream, which a dimension counts itself or in heads."""
    chosen = int(values[width])
    return chosen * HEAD_CHANNELS if width.endswith(".heads") else chosen
