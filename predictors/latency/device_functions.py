"""Latency functions of the devices of a table: smooth, without gaps, defined for any config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from predictors.latency.blocks import Blocks
from predictors.latency.configs import FloatArray
from predictors.latency.evidence import JITTER, most_likely_weights

# A process reads at most so many rows of a table, and looks for its weights on fewer.
_MOST_ROWS, _WEIGHT_ROWS = 800, 400
_START_WEIGHT, _START_NOISE = 0.2, 0.05
_LINEAR = ("counts", "amounts", "choices")
_BLOCK = 1024

Single = NDArray[np.float32]


@dataclass(frozen=True)
class DeviceFunctions:
    """Latency of each device relative to its mean, as the mean of a Gaussian process.

    The covariance is a weighted sum of linear kernels on the blocks (latency is close to additive),
    a quadratic one on choices and amounts (pairs of choices may interact) and a squared-exponential
    one on choices. Each device has its own weights and noise, by maximal marginal likelihood, since
    tables are noisy: a prediction of a table is a better feature than its entries.

    Attributes:
        linear: Block -> (f, D) weights of its features.
        choices: float32 (p, f) of the rows that were read.
        amounts: float32 (p, f) of the rows that were read.
        quadratic: float32 (p, D) weights of the quadratic kernel to these rows.
        exponential: float32 (p, D) weights of the squared-exponential kernel.
        level: (D,).
    """

    linear: Mapping[str, FloatArray]
    choices: Single
    amounts: Single
    quadratic: Single
    exponential: Single
    level: FloatArray

    @classmethod
    def of(cls, blocks: Blocks, latencies: Sequence[FloatArray]) -> Self:
        """The functions of D devices.

        Args:
            blocks: Features of P different configs.
            latencies: D times (P,) in any unit, NaN where it was not measured.
        """
        count = len(latencies[0])
        choices, amounts = _pair(blocks)
        used = np.linspace(0, count - 1, min(count, _MOST_ROWS)).astype(np.int64)
        own = {name: values[used] for name, values in blocks.items() if name in _LINEAR}
        kernels = [values @ values.T for values in own.values()]
        kernels += _curved(choices[used], amounts[used], choices[used], amounts[used])
        kernels.append(np.ones((len(used), len(used))))
        names = list(own)
        linear = {name: np.zeros((values.shape[1], len(latencies))) for name, values in own.items()}
        curved = np.zeros((2, len(used), len(latencies)))
        level = np.zeros(len(latencies))
        rng = np.random.default_rng(0)
        for device, latency in enumerate(latencies):
            rows = np.flatnonzero(~np.isnan(latency[used]))
            values = latency[used][rows]
            if not len(rows):
                # Measured on none of these rows: a constant to the others.
                continue
            spread = max(float(values.std()), 1e-9 * float(values.mean()))
            target = (values - values.mean()) / spread
            few = np.sort(rng.permutation(len(rows))[:_WEIGHT_ROWS])
            start = np.log([*[_START_WEIGHT] * (len(kernels) - 1), 1.0, _START_NOISE])
            seen = rows[few]
            logs = most_likely_weights(
                [kernel[np.ix_(seen, seen)] for kernel in kernels], target[few], start
            )
            weights = np.exp(logs)
            covariance = sum(
                weight * kernel[np.ix_(rows, rows)]
                for weight, kernel in zip(weights[:-1], kernels, strict=True)
            )
            covariance = covariance + (weights[-1] + JITTER) * np.eye(len(rows))
            # In units of the device's mean latency.
            solved = np.linalg.solve(covariance, target) * spread / values.mean()
            for weight, name in zip(weights, names, strict=False):
                linear[name][:, device] = weight * (own[name][rows].T @ solved)
            curved[:, rows, device] = weights[len(names) : len(names) + 2, None] * solved
            level[device] = 1.0 + weights[-2] * solved.sum()
        return cls(
            linear,
            choices[used].astype(np.float32),
            amounts[used].astype(np.float32),
            curved[0].astype(np.float32),
            curved[1].astype(np.float32),
            level,
        )

    def __call__(self, blocks: Blocks) -> FloatArray:
        """Latency (n, D) of each device relative to its mean over the table."""
        found = self.level + sum(blocks[name] @ weights for name, weights in self.linear.items())
        choices, amounts = (part.astype(np.float32) for part in _pair(blocks))
        # Blocks bound the (block, p) kernels to some tens of megabytes.
        for start in range(0, len(found), _BLOCK):
            part = slice(start, start + _BLOCK)
            kernels = _curved(choices[part], amounts[part], self.choices, self.amounts)
            found[part] += kernels[0] @ self.quadratic + kernels[1] @ self.exponential
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays for `restore`."""
        linear = {f"functions.linear.{name}": weights for name, weights in self.linear.items()}
        return linear | {
            "functions.choices": self.choices,
            "functions.amounts": self.amounts,
            "functions.quadratic": self.quadratic,
            "functions.exponential": self.exponential,
            "functions.level": self.level,
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` described.

        Raises:
            KeyError: An array is missing.
        """
        linear = {
            name: arrays[f"functions.linear.{name}"]
            for name in _LINEAR
            if f"functions.linear.{name}" in arrays
        }
        return cls(
            linear,
            arrays["functions.choices"],
            arrays["functions.amounts"],
            arrays["functions.quadratic"],
            arrays["functions.exponential"],
            arrays["functions.level"],
        )


def _pair(blocks: Blocks) -> tuple[FloatArray, FloatArray]:
    """Choices and amounts; no columns where a space has none that vary."""
    count = len(next(iter(blocks.values())))
    none = np.zeros((count, 0))
    return blocks.get("choices", none), blocks.get("amounts", none)


def _curved(
    choices: NDArray[np.floating],
    amounts: NDArray[np.floating],
    other_choices: NDArray[np.floating],
    other_amounts: NDArray[np.floating],
) -> list[Any]:
    """Quadratic and squared-exponential kernels (n, m)."""
    # Norms and factors are columns of the products: every pass over an (n, m) matrix counts, since
    # these matrices are most of the time of a prediction.
    half, other_half = (0.5 * (c**2).sum(axis=1, keepdims=True) for c in (choices, other_choices))
    one, other_one = np.ones_like(half), np.ones_like(other_half)
    exponent = (
        np.hstack([choices, half, one]) @ np.hstack([other_choices, -other_one, -other_half]).T
    )
    root = math.sqrt(0.5)
    left, right = [root * amounts, half, one], [root * other_amounts, other_one, other_half]
    quadratic = np.hstack(left) @ np.hstack(right).T
    quadratic += exponent
    quadratic *= quadratic
    return [quadratic, np.exp(exponent, out=exponent)]
