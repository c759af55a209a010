"""Search spaces that ship with netcarve, by name."""

from __future__ import annotations

from collections.abc import Callable

from spaces.families import (
    ElasticViT,
    ElasticViTSettings,
    MobileNetV3,
    MobileNetV3Settings,
    ResNet,
    ResNetSettings,
)
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


@SPACES.register("elasticvit_digits")
def elasticvit_digits() -> SearchSpace:
    """ElasticViT for 8x8 grey images, upsampled: at 32 pixels 64 and 16 tokens."""
    settings = ElasticViTSettings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (24, 28, 32),
            "stem": {"width": (8, 16), "depth": (1, 2), "kernel": (3, 5)},
            "conv_stages": (
                {
                    "width": (16, 24),
                    "depth": (1, 2),
                    "expansion": (2, 3, 4),
                    "kernel": (3, 5),
                },
            ),
            "transformer_stages": (
                {
                    "heads": (2, 3),
                    "depth": (1, 2),
                    "mlp_ratio": (2, 3),
                    "value_scale": (2, 3),
                    "entry_expansion": 3,
                    "stride": 1,
                },
                {
                    "heads": (3, 4, 5),
                    "depth": (1, 2, 3),
                    "mlp_ratio": (2, 3, 4),
                    "value_scale": (2, 3, 4),
                    "entry_expansion": 3,
                },
            ),
            "head_expansion": 2,
            "feature_width": 96,
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("elasticvit_digits", ElasticViT(settings))


@SPACES.register("elasticvit_imagenet")
def elasticvit_imagenet() -> SearchSpace:
    """The published space of ElasticViT (Tang et al. 2023) for ImageNet."""
    blocks: dict[str, object] = {"mlp_ratio": (2, 3, 4, 5), "value_scale": (2, 3, 4)}
    convolutions: dict[str, object] = {"expansion": (3, 4, 5, 6), "kernel": (3, 5)}
    depths = (1, 2, 3, 4, 5, 6)
    settings = ElasticViTSettings.model_validate(
        {
            "input_channels": 3,
            "classes": 1000,
            "resolution": (128, 160, 176, 192, 224, 256),
            "stem": {"width": (16, 24), "depth": (1, 2), "kernel": (3, 5)},
            "conv_stages": (
                {"width": (16, 24, 32), "depth": depths[1:5], **convolutions},
                {
                    "width": (16, 24, 32, 40, 48),
                    "depth": depths[1:],
                    "squeeze_excite": True,
                    **convolutions,
                },
            ),
            "transformer_stages": (
                {"heads": tuple(range(3, 7)), "depth": depths[:5], **blocks},
                {"heads": tuple(range(5, 11)), "depth": depths, "stride": 1, **blocks},
                {"heads": tuple(range(9, 19)), "depth": depths, **blocks},
                {"heads": tuple(range(10, 21)), "depth": depths, **blocks},
            ),
            "feature_width": 1984,
            "schemes": ("fp32", "w8a8"),
        }
    )
    return SearchSpace("elasticvit_imagenet", ElasticViT(settings))


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
