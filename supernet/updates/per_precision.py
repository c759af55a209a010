"""One update for each config of a step, with learning rates of scales that adapt to its bits.

Double Rounding (Huang et al. 2025): weights and scales have optimisers of their own, and both step
after every precision. The rate of the scales is that of their schedule, times a factor of the bits
(the fewer, the smaller), times 1 less the mean gradient of the scales. What we changed: the paper
subtracts that mean from the rate itself, which with any realistic gradient gives a negative rate;
here it reduces the rate in proportion and never below zero. Gradients are those of the scales'
logarithms, which our quantisers learn. A config of mixed bits counts as its mean bits, rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from spaces.config import Config
from spaces.dimension import DimensionKind
from spaces.quant_scheme import FLOAT_BITS
from supernet.distributed import World
from supernet.samplers.draw import Draw
from supernet.schedule import Rates
from supernet.supernet import Supernet
from supernet.updates.base import UPDATES, UpdateConfig, UpdateRule
from supernet.updates.optimizers import load_optimizer, make_optimizer, optimizer_tensors

_LARGEST_GRADIENT = 1.0


class PerPrecisionConfig(UpdateConfig):
    """Settings of `per_precision`; its `scale_rates` are adaptive by default."""

    name: Literal["per_precision"] = "per_precision"
    scale_rates: Literal["scheduled", "adaptive"] = "adaptive"


def bits_factor(highest: int, bits: int) -> float:
    """The factor of the scales' rate at `bits`: 1 at the highest, then .5, .1, .05, .01, ..."""
    gap = highest - bits
    return 10.0 ** (-gap / 2) if gap % 2 == 0 else 5 * 10.0 ** (-(gap + 1) / 2)


def mean_scale_gradient(scales: list[Tensor]) -> float:
    """Mean over the tensors that have a gradient of its largest magnitude, at most 1 each."""
    found = [float(s.grad.abs().max()) for s in scales if s.grad is not None]
    clipped = [min(value, _LARGEST_GRADIENT) for value in found]
    return sum(clipped) / len(clipped) if clipped else 0.0


def mean_weight_bits(config: Config) -> int | None:
    """Mean stored bits of a config's quantised weights, rounded; None without any."""
    specs = config.space.layer_specs(config)
    bits = [spec.precision.weight.bits for spec in specs if spec.precision.weight is not None]
    return round(sum(bits) / len(bits)) if bits else None


@UPDATES.register("per_precision")
class PerPrecisionUpdate(UpdateRule):
    """Weights and scales step after the backward pass of every config."""

    settings_type = PerPrecisionConfig
    updates_between = True
    config: PerPrecisionConfig

    def __init__(
        self, supernet: Supernet, config: UpdateConfig, weight_decay: float, world: World
    ) -> None:
        super().__init__(supernet, config, weight_decay, world)
        space = supernet.space
        self.highest_bits = max(
            (
                int(choice)
                for dimension in space.dimensions
                if dimension.kind is DimensionKind.W_BITS
                for choice in dimension.choices
                if int(choice) < FLOAT_BITS
            ),
            default=FLOAT_BITS,
        )
        self._log_scales: list[Tensor] = [
            p for name, p in supernet.named_parameters() if ".log_scale." in name
        ]
        self.rates = Rates(0.0, 0.0)

    def reset(self) -> None:
        scales = [{"params": self.supernet.quantizer_parameters()}]
        self.weights = make_optimizer(self.config.optimizer, self.weight_groups())
        self.scales = make_optimizer(self.config.optimizer, scales)

    def begin(self, rates: Rates) -> None:
        self.rates = rates
        for group in self.weights.param_groups:
            group["lr"] = rates.weights
        self._clear()

    def _clear(self) -> None:
        self.weights.zero_grad(set_to_none=True)
        self.scales.zero_grad(set_to_none=True)

    def scale_rate(self, config: Config) -> float:
        """Learning rate of the scales for the gradients at hand, which are those of `config`."""
        if self.config.scale_rates == "scheduled":
            return self.rates.quantizers
        bits = mean_weight_bits(config)
        if bits is None:
            return 0.0
        gradient = mean_scale_gradient(self._log_scales)
        return bits_factor(self.highest_bits, bits) * self.rates.quantizers * (1 - gradient)

    def after_backward(self, draw: Draw) -> None:
        self.world.mean_gradients(self.supernet.parameters())
        self.clip()
        for group in self.scales.param_groups:
            group["lr"] = self.scale_rate(draw.config)
        self.weights.step()
        self.scales.step()
        self._clear()

    def finish(self) -> None:
        """Every config has been seen to."""

    def tensors(self) -> dict[str, Tensor]:
        weights, scales = optimizer_tensors(self.weights), optimizer_tensors(self.scales)
        return {
            **{f"weights.{name}": tensor for name, tensor in weights.items()},
            **{f"scales.{name}": tensor for name, tensor in scales.items()},
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.reset()
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "scales": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        load_optimizer(self.weights, parts["weights"])
        load_optimizer(self.scales, parts["scales"])
