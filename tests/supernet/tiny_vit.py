"""A small space of the ElasticViT family, for tests of what is built from it."""

from __future__ import annotations

from spaces.families import ElasticViT, ElasticViTSettings
from spaces.space import SearchSpace


def tiny_vit_space(norm: str = "batch", **quantisation: object) -> SearchSpace:
    """Every kind of block, both strides of an entry, maps of 2 to 6 pixels.

    Args:
        norm: Of the transformer blocks.
        quantisation: `QuantSettings`; by default float32 and W8A8.
    """
    settings = ElasticViTSettings.model_validate(
        {
            "input_channels": 1,
            "classes": 10,
            "resolution": (16, 24),
            "stem": {"width": (8, 16), "depth": (1, 2), "kernel": (3, 5)},
            "conv_stages": (
                {
                    "width": (8, 24),
                    "depth": (1, 2),
                    "expansion": (2, 3),
                    "kernel": (3, 5),
                    "squeeze_excite": True,
                },
            ),
            "transformer_stages": (
                {
                    "heads": (1, 2),
                    "depth": (1, 2),
                    "mlp_ratio": (2, 3),
                    "value_scale": (1, 2, 3),
                    "entry_expansion": 2,
                    "stride": 1,
                },
                {
                    "heads": (2, 3),
                    "depth": (1, 2),
                    "mlp_ratio": (1, 2),
                    "value_scale": (2, 4),
                    "entry_expansion": 2,
                },
            ),
            "head_expansion": 2,
            "feature_width": 24,
            "norm": norm,
            **(quantisation or {"schemes": ("fp32", "w8a8")}),
        }
    )
    return SearchSpace("tiny_vit", ElasticViT(settings))
