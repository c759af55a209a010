"""Training HELP's network on the samples of one device."""

from __future__ import annotations

import numpy as np
import torch

from predictors.latency.configs import FloatArray
from predictors.latency.help_adaptation import Adaptation, Line, network_output
from predictors.latency.help_network import forward, init_network
from predictors.latency.help_settings import HelpSettings
from predictors.latency.help_tasks import as_tensor, normalised
from predictors.latency.inputs import InputEncoding
from predictors.latency.noise import relative_noise

# Left-out samples are predicted in so many folds.
_FOLDS = 5


def train_alone(
    encoding: InputEncoding,
    inputs: FloatArray,
    latency: FloatArray,
    settings: HelpSettings,
    steps: int,
    step_size: float,
) -> Adaptation:
    """The network trained on one device's samples alone, which are its references too.

    Args:
        encoding: Configs -> inputs.
        inputs: (n, i) of the samples.
        latency: (n,) in ms.
        settings: Of the network.
        steps: Steps of Adam on all samples.
        step_size: Of these steps.
    """
    count = len(latency)
    folds = np.arange(count) % min(count, _FOLDS)
    # Task 0 learns from all samples, each of the others without those of a fold.
    used = np.stack([folds != fold for fold in range(-1, int(folds.max()) + 1)])
    low, high = latency.min(), latency.max()
    references = np.where(used, latency, np.median(latency))
    embedding, _ = normalised(references, latency)
    labels = as_tensor(normalised(np.array([[low, high]]), latency)[1])
    generator = torch.Generator().manual_seed(settings.seed)
    network = init_network(inputs.shape[1], count, settings.hidden, generator)
    found = {
        name: value.repeat(len(used), 1, 1).requires_grad_() for name, value in network.items()
    }
    given, device, weights = as_tensor(inputs), as_tensor(embedding), as_tensor(used * 1.0)
    optimizer = torch.optim.Adam(list(found.values()), lr=step_size)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            errors = forward(found, given, device) - labels
            loss = ((weights * errors**2).sum(dim=1) / weights.sum(dim=1)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found = {name: value.detach() for name, value in found.items()}
    predicted = network_output(found, given, device)
    residuals = np.zeros(count)
    for values, mask in zip(predicted[1:], used[1:], strict=True):
        line = Line.through(values[mask], latency[mask])
        residuals[~mask] = np.log(latency[~mask] / line(values[~mask]))
    line = Line.through(predicted[0], latency)
    alone = {name: value[:1].clone() for name, value in found.items()}
    return Adaptation(encoding, alone, device[:1], line, relative_noise(residuals))
