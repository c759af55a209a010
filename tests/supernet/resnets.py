"""Small ResNet spaces that have everything a ResNet can have."""

from __future__ import annotations

from typing import Any

from spaces.families import ResNet, ResNetSettings
from spaces.space import SearchSpace


def basic_space(**precisions: Any) -> SearchSpace:
    """Basic blocks behind a stem for small images, elastic kernels, three precisions."""
    stages = (
        {"width": (16, 24), "depth": (1, 2), "expansion": (50, 100), "kernel": (3, 5)},
        {"width": (16, 32), "depth": (1, 2), "expansion": (50, 100), "stride": 2},
    )
    settings = {
        "input_channels": 1,
        "classes": 10,
        "resolution": (8, 12),
        "block": "basic",
        "stem": (8, 16),
        "stages": stages,
    }
    settings |= precisions or {"schemes": ("fp32", "w4a8", "w8a8")}
    return SearchSpace("basic", ResNet(ResNetSettings.model_validate(settings)))


def form_space() -> SearchSpace:
    """Basic blocks with every form of quantisation."""
    return basic_space(
        w_bits=(2, 3, 5, 8, 32),
        a_bits=(3, 8),
        granularity=("per_tensor", "per_channel", "per_group8"),
        weight_symmetry=("symmetric", "asymmetric"),
        activation_symmetry=("symmetric", "asymmetric"),
    )


def bottleneck_space() -> SearchSpace:
    """Bottlenecks behind an ImageNet stem."""
    settings = {
        "input_channels": 3,
        "classes": 7,
        "resolution": (20, 24),
        "block": "bottleneck",
        "imagenet_stem": True,
        "stem": (8, 16),
        "stages": (
            {"width": (32, 64), "depth": (1, 2), "expansion": (25, 50)},
            {"width": (64,), "depth": (1, 2), "expansion": (25, 35), "stride": 2},
        ),
        "schemes": ("fp32", "w8a8"),
    }
    return SearchSpace("bottleneck", ResNet(ResNetSettings.model_validate(settings)))
