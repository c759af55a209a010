"""A small MobileNetV3 whose first stage has no expand layers, as MobileNetV3's own."""

from __future__ import annotations

from spaces import SearchSpace


def tiny_mobilenet_space(stem=(8, 16), first=(8, 16), bits=(8, 32)):
    """Its first blocks have a shortcut where stem and first stage are of one width."""

    def stage(width, expansion, **more):
        return {"width": width, "depth": (1, 2), "expansion": expansion, "kernel": (3, 5), **more}

    settings = {
        "input_channels": 1,
        "classes": 4,
        "resolution": (16,),
        "stem": stem,
        "stages": (stage(first, (1,)), stage((16, 24), (2, 3), stride=2)),
        "head": (32,),
        "w_bits": bits,
        "a_bits": (8,),
    }
    return SearchSpace.from_json(
        {"name": "tiny", "family": "mobilenetv3", "settings": settings, "choices": None}
    )
