"""torch optimisers by name, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

OptimizerName = Literal["adamw", "sgd"]

_MOMENTUM = 0.9
_MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), torch.optim.SGD: ("momentum_buffer",)}


def make_optimizer(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, whose groups keep their own learning rates and decay."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=_MOMENTUM, weight_decay=0.0)
    return torch.optim.AdamW(groups, lr=1.0, weight_decay=0.0, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`{number of the parameter}.{name}` -> state, for parameters that were ever updated."""
    return {
        f"{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned into a fresh optimiser.

    Raises:
        KeyError, IndexError, ValueError: A tensor is missing, unknown or of another shape.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, field = name.partition(".")
        state.setdefault(int(number), {})[field] = tensor
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, fields in state.items():
        # The optimiser itself would only fail at its next step.
        wrong = [
            name
            for name in _MOMENTS[type(optimizer)]
            if fields[name].shape != parameters[index].shape
        ]
        if wrong:
            raise ValueError(f"optimizer.{index} has another shape: {wrong}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
