"""Search spaces that ship with netcarve, by name."""

from __future__ import annotations

from collections.abc import Callable

from spaces.families import MobileNetV3, MobileNetV3Settings, ResNet, ResNetSettings
from spaces.registry import Registry
from spaces.space import SearchSpace

SPACES: Registry[Callable[[], SearchSpace]] = Registry("space", "netcarve.spaces")


@SPACES.register("mobilenetv3_digits")
def mobilenetv3_digits() -> SearchSpace:
    """MobileNetV3 for 8x8 grey images, upsampled so that compute decides the latency."""
    settings = MobileNetV3Settings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (20, 24, 28, 32),
            "stem": (8, 16),
            "stages": (
                {
                    "width": (16, 24),
                    "depth": (1, 2, 3),
                    "expansion": (2, 3, 4),
                    "kernel": (3, 5),
                    "activation": "relu",
                },
                {
                    "width": (24, 32, 40),
                    "depth": (1, 2, 3),
                    "expansion": (2, 3, 4),
                    "kernel": (3, 5),
                    "stride": 2,
                },
                {
                    "width": (48, 64, 80),
                    "depth": (1, 2, 3),
                    "expansion": (2, 3, 4),
                    "kernel": (3, 5),
                    "stride": 2,
                },
            ),
            "head": (96, 128, 160),
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("mobilenetv3_digits", MobileNetV3(settings))


@SPACES.register("resnet_digits")
def resnet_digits() -> SearchSpace:
    """ResNet of basic blocks for 8x8 grey images, as they are or upsampled."""
    settings = ResNetSettings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (8, 12, 16),
            "block": "basic",
            "stem": (8, 16),
            "stages": (
                {"width": (16, 24), "depth": (1, 2), "expansion": (50, 100)},
                {"width": (24, 32, 48), "depth": (1, 2), "expansion": (50, 100), "stride": 2},
                {"width": (48, 64, 96), "depth": (1, 2), "expansion": (50, 100), "stride": 2},
            ),
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("resnet_digits", ResNet(settings))


@SPACES.register("resnet_imagenet")
def resnet_imagenet() -> SearchSpace:
    """ResNet of bottlenecks for ImageNet, around ResNet-50, with the depths, ratios and multiples
    of its widths (0.65, 0.8, 1) of once-for-all's (Cai et al. 2020)."""
    ratios: dict[str, object] = {"expansion": (20, 25, 35)}
    settings = ResNetSettings.model_validate(
        {
            "input_channels": 3,
            "classes": 1000,
            "resolution": (128, 160, 192, 224),
            "block": "bottleneck",
            "imagenet_stem": True,
            "stem": (32, 48, 64),
            "stages": (
                {"width": (168, 208, 256), "depth": (2, 3, 4), **ratios},
                {"width": (336, 408, 512), "depth": (2, 3, 4), "stride": 2, **ratios},
                {"width": (664, 816, 1024), "depth": (4, 5, 6), "stride": 2, **ratios},
                {"width": (1328, 1640, 2048), "depth": (2, 3, 4), "stride": 2, **ratios},
            ),
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("resnet_imagenet", ResNet(settings))


def get_space(name: str) -> SearchSpace:
    """A new instance of the space called `name`.

    Raises:
        UnknownNameError: No space has this name; the message lists the known ones.
    """
    return SPACES.get(name)()
