"""Perceptrons that predict accuracy, several at once.

Parameters are plain tensors by name with a leading axis of members: weights (m, in, out), biases
(m, 1, out).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Parameters = dict[str, Tensor]

QUANTISATION = "quantisation.weight"
# Members start out close to the samples' mean.
_OUTPUT = 0.3


def init_network(
    inputs: int, blocks: int, hidden: Sequence[int], members: int, generator: torch.Generator
) -> Parameters:
    """Random perceptrons (He et al. 2015).

    Args:
        inputs: Columns of the inputs.
        blocks: The mean squared length of an input, see `NetworkInputs.blocks`.
        hidden: Widths of the hidden layers.
        members: How many perceptrons.
        generator: Of the weights.
    """
    widths = (inputs, *hidden, 1)
    lengths = (max(blocks, 1), *hidden)
    gains = [2.0**0.5] * len(hidden) + [_OUTPUT]
    found: Parameters = {}
    for number, (length, gain) in enumerate(zip(lengths, gains, strict=True)):
        shape = (members, widths[number], widths[number + 1])
        std = gain * length**-0.5
        found[f"layer{number}.weight"] = std * torch.randn(shape, generator=generator)
        found[f"layer{number}.bias"] = torch.zeros(members, 1, widths[number + 1])
    return found


def blind_to(parameters: Parameters, columns: Sequence[bool]) -> Parameters:
    """A copy of perceptrons whose first layer does not see some columns of the inputs yet."""
    found = {name: value.clone() for name, value in parameters.items()}
    found["layer0.weight"][:, torch.tensor(columns, dtype=torch.bool)] = 0.0
    return found


def with_quantisation(parameters: Parameters, columns: int) -> Parameters:
    """A copy of perceptrons of architectures that reads quantisation besides (Wang et al. 2020).

    The new weights W_q (m, columns, hidden) are zero: until they are trained, a quantised subnet
    is predicted to be as good as the architecture in float32.
    """
    found = {name: value.clone() for name, value in parameters.items()}
    members, _, hidden = parameters["layer0.weight"].shape
    found[QUANTISATION] = torch.zeros(members, columns, hidden)
    return found


def forward(parameters: Parameters, inputs: Tensor, quantisation: Tensor) -> Tensor:
    """Standardised targets.

    Args:
        parameters: Of m members. Where they have W_q, the first hidden layer is
            ReLU(W inputs + b) + W_q quantisation, as in APQ's code: nothing clips the second term.
        inputs: (n, i).
        quantisation: (n, q); read by W_q alone.

    Returns:
        (m, n).
    """
    last = len([name for name in parameters if name.endswith(".bias")]) - 1
    hidden = _linear(parameters, 0, inputs).relu()
    if QUANTISATION in parameters:
        hidden = hidden + quantisation @ parameters[QUANTISATION]
    for number in range(1, last):
        hidden = _linear(parameters, number, hidden).relu()
    return _linear(parameters, last, hidden)[..., 0]


def _linear(parameters: Parameters, number: int, inputs: Tensor) -> Tensor:
    return inputs @ parameters[f"layer{number}.weight"] + parameters[f"layer{number}.bias"]
