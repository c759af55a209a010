"""Blocks of features between which kernels of latency are made: counts, MACs, choices, costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from predictors.latency.choices import choice_counts, one_hot_choices
from predictors.latency.configs import Configs, FloatArray
from predictors.latency.encoding import KERNEL_SUM
from predictors.latency.ridge import prior_covariance

# Columns of so many whole numbers are quantities, such as a resolution.
_ORDINAL = 8
# Share of an amount's mean that is added before the logarithm: an amount may be 0.
_FLOOR = 0.02
_LEAST_STD = 1e-9
# Configs outside those the scale was taken from stay within some standard deviations of them.
_FAR = 8.0

Blocks = dict[str, FloatArray]


def _costs(configs: Configs, _floor: FloatArray) -> FloatArray:
    """Labelled amounts in nominal ms, such that a dot product is the prior covariance of latency
    with related rates; no columns without labels."""
    labelled = [
        (place, amount)
        for place, amount in enumerate(configs.schema.amounts)
        if amount.labels and amount.name != KERNEL_SUM
    ]
    if not labelled:
        return np.zeros((len(configs), 0))
    places = [place for place, _ in labelled]
    root = np.linalg.cholesky(prior_covariance([amount for _, amount in labelled], speed=1.0))
    parts: FloatArray = configs.amounts[:, places] * configs.schema.nominal_ms[places] @ root
    return parts


def _amounts(configs: Configs, floor: FloatArray) -> FloatArray:
    """Amounts, their logarithms, and columns that are quantities."""
    schema = configs.schema
    places = [i for i, amount in enumerate(schema.amounts) if amount.name != KERNEL_SUM]
    plain = configs.amounts[:, places]
    parts = [plain, np.log(plain + np.where(floor > 0.0, floor, 1.0)[places])]
    for number, column in enumerate(schema.columns):
        whole = [choice for choice in column.choices if isinstance(choice, int)]
        if len(whole) == len(column.choices) > _ORDINAL:
            values = np.array([*whole, 0], dtype=np.float64)
            parts.append(values[configs.codes[:, [number]]])
    return np.concatenate(parts, axis=1)


def _macs(configs: Configs, _floor: FloatArray) -> FloatArray:
    counted = [i for i, amount in enumerate(configs.schema.amounts) if "macs" in amount.name]
    total: FloatArray = configs.amounts[:, counted].sum(axis=1, keepdims=True)
    return total


def _kernel_sum(configs: Configs, _floor: FloatArray) -> FloatArray:
    names = [amount.name for amount in configs.schema.amounts]
    return configs.amounts[:, [i for i, name in enumerate(names) if name == KERNEL_SUM]]


_RAW: Mapping[str, Callable[[Configs, FloatArray], FloatArray]] = {
    "counts": lambda configs, _floor: choice_counts(configs),
    "macs": _macs,
    "amounts": _amounts,
    "choices": lambda configs, _floor: one_hot_choices(configs),
    "costs": _costs,
    "kernels": _kernel_sum,
}
# Rare choices weigh less than common ones, and costs as much as they take: these keep their scale.
_UNSCALED = ("choices", "costs")
BLOCKS = tuple(_RAW)


@dataclass(frozen=True)
class FeatureBlocks:
    """Features of configs in blocks, centred; the mean squared length of a block's rows is 1.

    Attributes:
        floor: (amounts,) added to the amounts before their logarithm, 0 where an amount is 0.
        mean: Block -> (f,) of the raw features.
        scale: Block -> (f,), 0 where a feature does not vary. A block that is not there has nothing
            that varies.
        length: Block -> what its features, scaled, are divided by.
    """

    floor: FloatArray
    mean: Mapping[str, FloatArray]
    scale: Mapping[str, FloatArray]
    length: Mapping[str, float]

    @classmethod
    def of(cls, configs: Configs) -> Self:
        """Blocks whose centre and scale are taken from some configs."""
        means, scales, lengths = {}, {}, {}
        floor = _FLOOR * configs.amounts.mean(axis=0)
        for name, function in _RAW.items():
            raw = function(configs, floor)
            std = raw.std(axis=0)
            varies = std > _LEAST_STD * np.maximum(1.0, np.abs(raw).max(axis=0, initial=0.0))
            if not varies.any():
                continue
            own = np.ones_like(std) if name in _UNSCALED else 1.0 / np.where(varies, std, 1.0)
            means[name], scales[name] = raw.mean(axis=0), np.where(varies, own, 0.0)
            scaled = (raw - means[name]) * scales[name]
            lengths[name] = float(np.sqrt((scaled**2).sum(axis=1).mean()))
        return cls(floor, means, scales, lengths)

    def extended(self, configs: Configs) -> Self:
        """These blocks with what varies in other configs and did not vary before.

        A table may lack a part of a space, such as layers in integers.
        """
        other = type(self).of(configs)
        means, scales, lengths = dict(self.mean), dict(self.scale), dict(self.length)
        more = False
        for name, scale in other.scale.items():
            new = scale > 0.0
            if name in scales:
                new &= scales[name] == 0.0
            more |= bool(new.any())
            if name in scales:
                scales[name] = np.where(new, scale, scales[name])
                means[name] = np.where(new, other.mean[name], means[name])
            else:
                means[name], scales[name] = other.mean[name], scale
                lengths[name] = other.length[name]
        if not more:
            return self
        order = [name for name in BLOCKS if name in means]
        return type(self)(
            np.where(self.floor > 0.0, self.floor, other.floor),
            {name: means[name] for name in order},
            {name: scales[name] for name in order},
            {name: lengths[name] for name in order},
        )

    def __call__(self, configs: Configs) -> Blocks:
        """Block -> features (n, f)."""
        found = {}
        for name, mean in self.mean.items():
            values = _RAW[name](configs, self.floor) - mean
            values *= self.scale[name] / self.length[name]
            if name not in _UNSCALED:
                limit = _FAR / self.length[name]
                np.clip(values, -limit, limit, out=values)
            found[name] = values
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks, in the order of `BLOCKS`."""
        return tuple(self.mean)

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays for `restore`."""
        arrays: dict[str, NDArray[Any]] = {"blocks.floor": self.floor}
        for name in self.names:
            arrays[f"blocks.mean.{name}"] = self.mean[name]
            arrays[f"blocks.scale.{name}"] = self.scale[name]
            arrays[f"blocks.length.{name}"] = np.array([self.length[name]])
        return arrays

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` described.

        Raises:
            KeyError: An array is missing.
        """
        names = [name for name in BLOCKS if f"blocks.mean.{name}" in arrays]
        return cls(
            arrays["blocks.floor"],
            {name: arrays[f"blocks.mean.{name}"] for name in names},
            {name: arrays[f"blocks.scale.{name}"] for name in names},
            {name: float(arrays[f"blocks.length.{name}"][0]) for name in names},
        )


def squared_distances(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Squared Euclidean distances (n, m) of rows (n, f) and (m, f)."""
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2.0 * first @ second.T
    distances: NDArray[np.floating] = np.maximum(squared, 0.0)
    return distances
