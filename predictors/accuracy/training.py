"""Training of perceptrons that predict accuracy."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import smooth_l1_loss

from predictors.accuracy.ensemble import Ensemble, Rows, outputs
from predictors.accuracy.network import Parameters, forward
from predictors.accuracy.settings import NetworkSettings
from predictors.accuracy.target_scale import TargetScale
from predictors.base import FloatArray

# Of the error of left-out samples, at least so much is no disagreement of members.
_LEAST_NOISE_SHARE = 0.1
_LEAST_NOISE = 0.02


def train(
    start: Parameters,
    rows: Rows,
    subnets: NDArray[np.uint64],
    accuracy: FloatArray,
    settings: NetworkSettings,
    generator: torch.Generator,
) -> Ensemble:
    """Adam on the smooth L1 loss of standardised targets, as in EQ-Net.

    What we changed: every member leaves out a share of the subnets; the parameters are those of
    the epoch in which left-out samples were predicted best, and the errors on them are the noise.

    Args:
        start: Parameters of all members; left as they are.
        rows: Of the samples.
        subnets: (n,) equal numbers for samples of one subnet.
        accuracy: (n,) fractions.
        settings: Number of members, steps and rates.
        generator: Of what is left out, and of the batches.
    """
    scale = TargetScale.of(accuracy)
    target = torch.from_numpy(scale(accuracy).astype(np.float32))
    left_out = _left_out(subnets, settings.members, generator)
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(
        list(parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    batches = math.ceil(len(rows) / settings.batch)
    epochs = max(settings.epochs, math.ceil(settings.steps / batches))
    best, least = start, math.inf
    for epoch in range(epochs):
        rate = 0.5 * settings.learning_rate * (1 + math.cos(math.pi * epoch / epochs))
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        order = torch.randperm(len(rows), generator=generator)
        for which in torch.split(order, settings.batch):
            total += _step(
                parameters, optimizer, rows.take(which), target[which], left_out[:, which]
            )
        if total < least:
            least = total
            best = {name: value.detach().clone() for name, value in parameters.items()}
    predicted = outputs(best, rows)
    errors = (predicted - target.numpy())[left_out.numpy()]
    found = float((errors**2).mean())
    shown = float(predicted.var(axis=0, ddof=1).mean())
    noise = math.sqrt(max(found - shown, _LEAST_NOISE_SHARE * found))
    return Ensemble(best, scale, max(noise, _LEAST_NOISE), found)


def _step(
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    target: torch.Tensor,
    left_out: torch.Tensor,
) -> float:
    """One step on a batch; the summed loss of its samples by the members that leave them out."""
    optimizer.zero_grad()
    with torch.enable_grad():
        predicted = forward(parameters, rows.inputs, rows.quantisation)
        losses = smooth_l1_loss(predicted, target.expand_as(predicted), reduction="none")
        learnt = ~left_out
        # A sum over the members: each learns as if it were alone.
        loss = ((losses * learnt).sum(dim=1) / learnt.sum(dim=1).clamp(min=1)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(losses.detach()[left_out].sum())


def _left_out(
    subnets: NDArray[np.uint64], members: int, generator: torch.Generator
) -> torch.Tensor:
    """Which samples a member leaves out: bool (m, n), each sample by one member."""
    distinct, number = np.unique(subnets, return_inverse=True)
    share = torch.randperm(len(distinct), generator=generator) % members
    return share[torch.from_numpy(number)] == torch.arange(members)[:, None]
