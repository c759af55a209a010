"""Hessian-aware stochastic bits (Double Rounding, Huang et al. 2025): sensitive layers get more.

A layer is sensitive when the trace of the Hessian of its weights is at least the mean over the
layers; here the trace over its number of weights, or large layers would always be. Its bits b then
have probability b / sum of the choices, other layers' are uniform. What we changed: the bits of
weights and inputs of a layer are drawn separately where they are separate dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from spaces.dimension import DimensionKind
from spaces.space import Population, SearchSpace
from supernet.samplers.bit_layers import BitDimension, bit_dimensions
from supernet.samplers.bits import BIT_SAMPLERS, BitSampler, BitsConfig, union_of_bits
from supernet.schedule import Horizon

_STREAM = 22
_KINDS = (DimensionKind.W_BITS, DimensionKind.A_BITS)


class HessianBitsConfig(BitsConfig):
    """Settings of `hessian`.

    Attributes:
        strength: Probability of bits by layer in the last epoch, the paper's sigma; it rises in
            proportion to the epochs done. Otherwise all layers have the same, uniform bits.
        refresh: Epochs after which the traces are estimated anew.
        probes: Random directions of an estimate.
    """

    name: Literal["hessian"] = "hessian"
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    refresh: Annotated[int, Field(ge=1)] = 10
    probes: Annotated[int, Field(ge=1)] = 50


@BIT_SAMPLERS.register("hessian")
class HessianBits(BitSampler):
    """The random configs of a step have bits by layer, or the same bits in all layers."""

    settings_type = HessianBitsConfig
    config: HessianBitsConfig

    def __init__(self, space: SearchSpace, seed: int, config: BitsConfig, horizon: Horizon) -> None:
        super().__init__(space, seed, config, horizon)
        self.dimensions = {kind: bit_dimensions(space, kind) for kind in _KINDS}
        self.traces: dict[str, float] = {}
        self.estimated_at: int | None = None

    def trace_probes(self, step: int) -> int:
        epoch, place = self.horizon.place(step)
        is_due = place == 0 and epoch % self.config.refresh == 0 and self.estimated_at != step
        return self.config.probes if is_due or self.estimated_at is None else 0

    def set_traces(self, step: int, traces: Mapping[str, float]) -> None:
        self.traces, self.estimated_at = dict(traces), step

    def probability(self, step: int) -> float:
        """How likely a config of this step has bits by layer."""
        epoch, _ = self.horizon.place(step)
        return self.config.strength * min(1.0, (epoch + 1) / self.horizon.epochs)

    def sensitive(self, dimension: BitDimension) -> bool:
        """Whether a layer of the dimension has a trace of at least the mean."""
        sites = {s for found in self.dimensions.values() for d in found for s in d.sites}
        known = [self.traces[site] for site in sites if site in self.traces]
        mean = sum(known) / len(known) if known else 0.0
        return any(self.traces.get(site, 0.0) >= mean for site in dimension.sites)

    def draw(self, step: int, rows: Population) -> Population:
        rng = np.random.default_rng((self.seed, _STREAM, step))
        rows = rows.copy()
        by_layer = rng.random(len(rows)) < self.probability(step)
        for kind, dimensions in self.dimensions.items():
            if not dimensions:
                continue
            common = rng.choice(union_of_bits(self.space, kind), len(rows))
            for dimension in dimensions:
                bits = np.array(dimension.choices)
                weights = bits if self.sensitive(dimension) else np.ones(len(bits))
                own = rng.choice(len(bits), len(rows), p=weights / weights.sum())
                same = np.abs(bits[None] - common[:, None]).argmin(1)
                rows[:, dimension.column] = np.where(by_layer, own, same)
        return rows

    def memory(self) -> dict[str, Any]:
        return {"traces": self.traces, "estimated_at": self.estimated_at}

    def load_memory(self, memory: Mapping[str, Any]) -> None:
        at = memory["estimated_at"]
        self.traces = {str(site): float(value) for site, value in memory["traces"].items()}
        self.estimated_at = None if at is None else int(at)
