"""How HELP is meta-trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HelpSettings:
    """Settings of HELP; the defaults are the paper's unless they say otherwise.

    Made-up devices let it learn with larger steps, and fewer of them.

    Attributes:
        episodes: Steps of meta-training; 2000 in the paper.
        tasks: Devices of an episode.
        amounts: Whether the network reads the configs' amounts beside their choices; the paper's
            reads choices. With them it needs other devices less.
        made_up: Share of an episode's devices that are made up from the others (see
            `help_tasks.Devices.made_up`); 0 in the paper.
        queries: Configs of each device in an episode.
        inner_steps: Gradient steps of adapting to a device.
        inner_rate: Where the learned rates of these steps start.
        learning_rate: Adam's, of the meta-training; 1e-4 in the paper.
        kl_weight: Weight of the KL divergence of q(z | embedding) to N(0, I).
        hidden: Width of the network's branches; its head is twice as wide.
        draws: Draws of z over which an adaptation is averaged.
        validate_every: Episodes between two scores of the held-out devices.
        seed: Of everything that is random.
    """

    episodes: int = 500
    tasks: int = 8
    amounts: bool = False
    made_up: float = 0.75
    queries: int = 200
    inner_steps: int = 2
    inner_rate: float = 1e-3
    learning_rate: float = 1e-3
    kl_weight: float = 0.1
    hidden: int = 100
    draws: int = 10
    validate_every: int = 50
    seed: int = 0
