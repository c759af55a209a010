"""Configs of a search space as latency predictors see them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from predictors.features import FEATURES, cost_features
from predictors.latency.configs import ABSENT, Amount, Column, Configs, ConfigSchema, FloatArray
from spaces.space import Population, SearchSpace

KernelLatencies = Callable[[Population], FloatArray]
KERNEL_SUM = "kernel_sum_ms"


class SpaceEncoding:
    """Population -> `Configs`: a column for each dimension, an amount for each cost feature.

    Columns of one kind of dimension form a group. Where the latencies of single kernels on the
    device are known, their sum is one more amount (`KERNEL_SUM`).

    Args:
        space: The space.
        kernel_latencies: Measured latencies of the kernels that a config consists of: population
            int16 (n, d) -> ms (n, t), summed by kernel template.
    """

    def __init__(self, space: SearchSpace, kernel_latencies: KernelLatencies | None = None) -> None:
        self.space = space
        self.kernel_latencies = kernel_latencies
        columns = tuple(Column(d.name, d.choices, d.kind.value) for d in space.dimensions)
        amounts = [
            Amount(f"{f.term}.{f.operator}.{f.precision}", f.nominal_ms, tuple(f)) for f in FEATURES
        ]
        if kernel_latencies is not None:
            amounts.append(Amount(KERNEL_SUM, 1.0, (KERNEL_SUM,)))
        self.schema = ConfigSchema(columns, tuple(amounts))

    def __call__(self, population: Population) -> Configs:
        """The configs of a population.

        Args:
            population: int16 (n, d).
        """
        codes = np.where(self.space.active(population), population, ABSENT).astype(np.int16)
        amounts = cost_features(self.space, population)
        if self.kernel_latencies is not None:
            kernel_sum = self.kernel_latencies(population).sum(axis=1)
            amounts = np.column_stack([amounts, kernel_sum])
        return Configs(self.schema, codes, amounts)
