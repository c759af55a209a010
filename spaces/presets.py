"""Search spaces that ship with netcarve, by name."""

from __future__ import annotations

from collections.abc import Callable

from spaces.families import MobileNetV3, MobileNetV3Settings
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


def get_space(name: str) -> SearchSpace:
    """A new instance of the space called `name`.

    Raises:
        UnknownNameError: No space has this name; the message lists the known ones.
    """
    return SPACES.get(name)()
