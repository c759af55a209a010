"""The family `plain_cnn`: a stem, convolutions one after the other, pooling, a classifier."""

from __future__ import annotations

from spaces.dimension import Dimension, DimensionKind
from spaces.families.base import Slot, Values
from spaces.families.image import ImageFamily, ImageSettings
from spaces.families.quantisation import form_dimensions, layer_dimensions
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import site_precision
from spaces.space import SearchSpace


class PlainCnnSettings(ImageSettings):
    """Choices of a plain network: one width for all, a kernel for each convolution."""

    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel: tuple[int, ...]


class PlainCnn(ImageFamily):
    """Dimensions and layers of a plain network. The stem stays float32."""

    name = "plain_cnn"
    settings_type = PlainCnnSettings
    settings: PlainCnnSettings

    def dimensions(self) -> tuple[Dimension, ...]:
        settings = self.settings
        found = [
            Dimension("resolution", DimensionKind.RESOLUTION, settings.resolution),
            Dimension("width", DimensionKind.WIDTH, settings.width),
            Dimension("depth", DimensionKind.DEPTH, settings.depth),
        ]
        for j in range(max(settings.depth)):
            found.append(Dimension(f"block{j}.kernel", DimensionKind.KERNEL, settings.kernel))
            found += layer_dimensions(settings, f"block{j}.conv")
        found += layer_dimensions(settings, "classifier")
        return (*found, *form_dimensions(settings))

    def slots(self) -> tuple[Slot, ...]:
        blocks = (self._block(j) for j in range(max(self.settings.depth)))
        tail = ("resolution", "width", *self._precision_reads("classifier"))
        return (
            Slot("stem", ("resolution", "width"), self._stem),
            *blocks,
            Slot("tail", tail, self._tail),
        )

    def _stem(self, values: Values) -> tuple[LayerSpec, ...]:
        resolution, width = int(values["resolution"]), int(values["width"])
        half = (resolution - 1) // 2 + 1
        channels = self.settings.input_channels
        return (
            LayerSpec(
                "stem", Operator.CONV, channels, width, resolution, half, 3, 2,
                activation=Activation.RELU,
            ),
        )  # fmt: skip

    def _block(self, j: int) -> Slot:
        site = f"block{j}.conv"

        def layers(values: Values) -> tuple[LayerSpec, ...]:
            width, size = int(values["width"]), (int(values["resolution"]) - 1) // 2 + 1
            return (
                LayerSpec(
                    site, Operator.CONV, width, width, size, size,
                    kernel=int(values[f"block{j}.kernel"]), activation=Activation.RELU,
                    precision=site_precision(values, site, nonnegative=True),
                ),
            )  # fmt: skip

        reads = ("resolution", "width", f"block{j}.kernel", *self._precision_reads(site))
        # Present from depth j + 1 on; its own dimensions begin with its name.
        return Slot(f"block{j}", reads, layers, depth=("depth", j + 1))

    def _tail(self, values: Values) -> tuple[LayerSpec, ...]:
        width, size = int(values["width"]), (int(values["resolution"]) - 1) // 2 + 1
        precision = site_precision(values, "classifier", nonnegative=True)
        return (
            LayerSpec("pool", Operator.GLOBAL_POOL, width, width, size, 1),
            LayerSpec("classifier", Operator.LINEAR, width, self.classes, precision=precision),
        )


def plain_cnn_small() -> SearchSpace:
    """Plain networks for 8x8 grey images."""
    settings = {
        "input_channels": 1,
        "classes": 10,
        "resolution": (8, 12),
        "width": (8, 16),
        "depth": (1, 2, 3),
        "kernel": (1, 3),
        "schemes": ("fp32", "w4a8", "w8a8"),
    }
    return SearchSpace("plain_cnn_small", PlainCnn(PlainCnnSettings.model_validate(settings)))
