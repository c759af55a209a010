"""HELP's meta-training: an initialisation and learning rates that adapt to a device in few steps.

Lee et al., "HELP: Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning",
NeurIPS 2021. Tasks are devices. The KL term is the mean over an episode's tasks, and only held-out
devices select the state that is kept; the published code adds the last task's KL once for each task
and lets scores of the training devices take part in the selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from predictors.latency.help_network import (
    Parameters,
    divergence,
    forward,
    init_network,
    init_posterior,
    modulated,
    posterior,
)
from predictors.latency.help_settings import HelpSettings
from predictors.latency.help_tasks import Devices, Episode, Support, as_tensor
from predictors.scores import spearman

EpisodeDone = Callable[[int, int], None]


@dataclass(frozen=True)
class Learned:
    """What meta-training learns.

    Attributes:
        network: The initialisation.
        rates: Learning rates of the inner loop, one for each parameter of the network.
        modulation: Parameters of q(z | embedding).
    """

    network: Parameters
    rates: Parameters
    modulation: Parameters

    @classmethod
    def initial(cls, inputs: int, references: int, settings: HelpSettings) -> Learned:
        """What meta-training starts from; random by the settings' seed."""
        generator = torch.Generator().manual_seed(settings.seed)
        network = init_network(inputs, references, settings.hidden, generator)
        rates = {k: torch.full_like(v, settings.inner_rate) for k, v in network.items()}
        return cls(network, rates, init_posterior(references, settings.hidden, generator))

    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [*self.network.values(), *self.rates.values(), *self.modulation.values()]

    def adapted(self, support: Support, z: Tensor, steps: int, differentiable: bool) -> Parameters:
        """Parameters (t, ...) after the inner loop.

        Args:
            support: Of t tasks.
            z: (t, z) of the modulated initialisation.
            steps: Steps of gradient descent.
            differentiable: Keep the graph through the steps, without which the rates do not learn.
        """
        with torch.enable_grad():
            found = modulated(self.network, z)
            if not differentiable:
                found = {k: v.detach().requires_grad_() for k, v in found.items()}
            total = support.weights.sum(dim=1).clamp(min=1e-9)
            for _ in range(steps):
                errors = forward(found, support.inputs, support.embedding) - support.labels
                # Tasks do not touch each other, so the gradient of the sum is that of each.
                loss = ((support.weights * errors**2).sum(dim=1) / total).sum()
                gradients = torch.autograd.grad(
                    loss, list(found.values()), create_graph=differentiable
                )
                found = {
                    name: value - self.rates[name] * gradient
                    for (name, value), gradient in zip(found.items(), gradients, strict=True)
                }
                if not differentiable:
                    found = {k: v.detach().requires_grad_() for k, v in found.items()}
        return found if differentiable else {k: v.detach() for k, v in found.items()}


def meta_train(
    devices: Devices,
    training: Sequence[int],
    validation: Sequence[int],
    settings: HelpSettings,
    progress: EpisodeDone,
) -> Learned:
    """Learn from the training devices.

    Args:
        devices: All devices, each with at least one query.
        training: Numbers of those to learn from.
        validation: Numbers of those whose rank correlation selects the state that is kept; none
            keeps the last.
        settings: How.
        progress: Called with the episodes done and their total.
    """
    learned = Learned.initial(devices.inputs.shape[1], len(devices.references), settings)
    tensors = [tensor.requires_grad_() for tensor in learned.tensors()]
    optimizer = torch.optim.Adam(tensors, lr=settings.learning_rate)
    rng = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    best, kept = -np.inf, [tensor.detach().clone() for tensor in tensors]
    for episode in range(1, settings.episodes + 1):
        optimizer.zero_grad()
        drawn = devices.episode(training, settings, rng)
        loss = _episode_loss(learned, drawn, settings, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = episode == settings.episodes
        if validation and (last or episode % settings.validate_every == 0):
            found = _validation_score(learned, devices, validation, settings)
            if found > best:
                best, kept = found, [tensor.detach().clone() for tensor in tensors]
        progress(episode, settings.episodes)
    chosen = kept if validation else [tensor.detach() for tensor in tensors]
    with torch.no_grad():
        for tensor, value in zip(tensors, chosen, strict=True):
            tensor.copy_(value)
            tensor.requires_grad_(False)
    return learned


def _episode_loss(
    learned: Learned, episode: Episode, settings: HelpSettings, generator: torch.Generator
) -> Tensor:
    """Mean over tasks of the squared error on the queries and of the KL divergence."""
    support = episode.support
    mean, std = posterior(learned.modulation, support.embedding)
    z = mean + std * torch.randn(mean.shape, generator=generator)
    adapted = learned.adapted(support, z, settings.inner_steps, differentiable=True)
    errors = forward(adapted, episode.inputs, support.embedding) - episode.labels
    return (errors**2).mean() + settings.kl_weight * divergence(mean, std).mean()


def _validation_score(
    learned: Learned, devices: Devices, which: Sequence[int], settings: HelpSettings
) -> float:
    """Mean rank correlation over the queries of some devices, adapted from the mean of z."""
    support = devices.support(which)
    with torch.no_grad():
        mean, _ = posterior(learned.modulation, support.embedding)
        adapted = learned.adapted(support, mean, settings.inner_steps, differentiable=False)
        found = forward(adapted, as_tensor(devices.inputs), support.embedding)
    scores = []
    for place, device in enumerate(which):
        rows = devices.queries[device]
        predicted = found[place].numpy().astype(np.float64)[rows]
        scores.append(spearman(devices.labels[device, rows], predicted))
    return float(np.mean(scores))
