"""HELP's network: latency of a config from its encoding and the device's embedding.

Parameters are plain tensors by name, with a leading axis of tasks where each task has its own, so
that one call serves all tasks of an episode.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

Parameters = dict[str, Tensor]

# Layers after the two branches meet; z scales their weights and shifts their biases.
MODULATED = ("head1", "head2", "head3")
_MODULATION = 0.01


def init_network(
    inputs: int, references: int, hidden: int, generator: torch.Generator
) -> Parameters:
    """Parameters of the predictor: a branch for the config, one for the device, then both.

    Weights are (in, out), biases (1, out): a leading axis of tasks broadcasts.
    """
    both = 2 * hidden
    sizes = {
        "config1": (inputs, hidden),
        "config2": (hidden, hidden),
        "device1": (references, hidden),
        "device2": (hidden, hidden),
        "head1": (both, both),
        "head2": (both, both),
        "head3": (both, 1),
    }
    return _init(sizes, generator)


def init_posterior(references: int, hidden: int, generator: torch.Generator) -> Parameters:
    """Parameters of q(z | embedding)."""
    modulations = len(MODULATED) * (2 * hidden + 1)
    sizes = {"z1": (references, references), "z2": (references, 2 * modulations)}
    return _init(sizes, generator)


def _init(sizes: dict[str, tuple[int, int]], generator: torch.Generator) -> Parameters:
    found: Parameters = {}
    for layer, (fan_in, fan_out) in sizes.items():
        bound = fan_in**-0.5
        for name, rows in ((f"{layer}.weight", fan_in), (f"{layer}.bias", 1)):
            found[name] = (2 * torch.rand(rows, fan_out, generator=generator) - 1) * bound
    return found


def posterior(parameters: Parameters, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (t, z) of z for embeddings (t, r)."""
    hidden = _linear(parameters, "z1", embedding).relu()
    mean, raw = _linear(parameters, "z2", hidden).chunk(2, dim=-1)
    return mean, softplus(raw) + 1e-6


def divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence (t,) of q(z | embedding) to N(0, I)."""
    return 0.5 * (mean**2 + std**2 - 1.0 - 2.0 * std.log()).sum(dim=-1)


def modulated(parameters: Parameters, z: Tensor) -> Parameters:
    """Parameters (t, ...) of t tasks: shared ones (...), those of the head modulated by z (t, z).

    z holds for each layer of the head a factor of every input and one shift of the biases.
    """
    tasks = len(z)
    found = {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}
    start = 0
    for layer in MODULATED:
        width = parameters[f"{layer}.weight"].shape[0]
        factors = z[:, start : start + width, None]
        shift = z[:, start + width, None, None]
        found[f"{layer}.weight"] = parameters[f"{layer}.weight"] * (1 + _MODULATION * factors)
        found[f"{layer}.bias"] = parameters[f"{layer}.bias"] + _MODULATION * shift
        start += width + 1
    return found


def forward(parameters: Parameters, inputs: Tensor, embedding: Tensor) -> Tensor:
    """Normalised latencies.

    Args:
        parameters: Of t tasks.
        inputs: (t, n, i), or (n, i) of the same configs for all.
        embedding: (t, r), one of a device for all its configs.

    Returns:
        (t, n).
    """
    config = _linear(parameters, "config2", _linear(parameters, "config1", inputs).relu()).relu()
    # [t, r] -> [t, 1, hidden]
    device = _linear(parameters, "device1", embedding[:, None]).relu()
    device = _linear(parameters, "device2", device).relu()
    # The branches are not concatenated: the device's part is the same for all configs.
    weight, bias = parameters["head1.weight"], parameters["head1.bias"]
    width = config.shape[-1]
    hidden = (config @ weight[:, :width] + (device @ weight[:, width:] + bias)).relu()
    hidden = _linear(parameters, "head2", hidden).relu()
    return _linear(parameters, "head3", hidden)[..., 0]


def _linear(parameters: Parameters, layer: str, inputs: Tensor) -> Tensor:
    return inputs @ parameters[f"{layer}.weight"] + parameters[f"{layer}.bias"]
