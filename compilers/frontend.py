"""From a module to an operator graph: torch.export, then operator by operator (`lift`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph
from compilers.runtime import INPUT_DTYPES

if TYPE_CHECKING:
    import torch


def trace(
    module: torch.nn.Module, input_shape: tuple[int, ...], input_dtype: str = "float32"
) -> Graph:
    """The operator graph of `module` for one input of `input_shape`, batch 1.

    Args:
        module: An extracted subnet, or any module made of the supported operators.
        input_shape: `[1, C, H, W]`, `[1, T, C]` or `[1, C]`; `[1, T]` for tokens.
        input_dtype: `float32`, or `int64` for tokens.

    Raises:
        UnsupportedOperatorError: An operator, or the way it is used, has no kernel template; the
            message names the operator and its node.
    """
    import torch

    from compilers import lift_layers, lift_views
    from compilers.composites import compose
    from compilers.lift import lift

    if input_shape[0] != 1:
        raise UnsupportedOperatorError(f"batch {input_shape[0]} is not supported; batch is 1")
    if input_dtype not in INPUT_DTYPES:
        raise UnsupportedOperatorError(
            f"an input of {input_dtype} is not supported; allowed: {', '.join(INPUT_DTYPES)}"
        )
    example = (torch.zeros(input_shape, dtype=getattr(torch, input_dtype)),)
    with torch.no_grad():
        program = torch.export.export(module.eval(), example)
    return compose(lift(program, {**lift_layers.TRANSLATORS, **lift_views.TRANSLATORS}))
