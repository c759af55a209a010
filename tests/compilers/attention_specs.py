"""The layers of a small subnet with attention."""

from __future__ import annotations

from spaces.families.transformer import Norm, attention_layers, mlp_layers
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import FP32, W8A8

SIZE, WIDTH, HEADS = 4, 32, 2
"""Of the map behind the stem, pixels and channels; a value has 48 channels."""

PRECISIONS = {"fp32": FP32, "w8a8": W8A8}


def attention_specs(name: str, norm: Norm = "batch") -> tuple[LayerSpec, ...]:
    """A stem, one transformer block, pooling, and a classifier."""
    precision = PRECISIONS[name]
    bits = 32 if precision == FP32 else 8
    attention, mlp = "s.block0.attention", "s.block0.mlp"
    sites = (f"{attention}.qkv", f"{attention}.project", f"{mlp}.expand", f"{mlp}.project")
    values = {f"{site}.w_bits": bits for site in sites}
    hardswish = Activation.HARDSWISH
    return (
        LayerSpec("stem", Operator.CONV, 1, WIDTH, 2 * SIZE, SIZE, 3, 2, activation=hardswish),
        *attention_layers(attention, WIDTH, HEADS, 3, SIZE, values, norm),
        *mlp_layers(mlp, WIDTH, 2 * WIDTH, SIZE, values, norm),
        LayerSpec("pool", Operator.GLOBAL_POOL, WIDTH, WIDTH, SIZE, 1),
        LayerSpec("classifier", Operator.LINEAR, WIDTH, 10, precision=precision),
    )
