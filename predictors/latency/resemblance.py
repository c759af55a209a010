"""How an unseen device differs from those of a table: factors of the table, and kernel weights.

Each device of the table is taken for a new one, left out together with those that resemble it; the
weights that explain it best are a hypothesis about the next new device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from predictors.latency.blocks import Blocks, squared_distances
from predictors.latency.configs import FloatArray
from predictors.latency.evidence import most_likely_weights

DEVICES, EXPONENTIAL = "devices", "exponential"

# Devices whose functions correlate as much are left out together: they are settings of one.
_ALIKE = 0.97
_ROWS = 300
_STEPS = 40

# Logarithms of the weights that are expected before any device was seen, and of the noise.
_EXPECTED: Mapping[str, float] = {
    DEVICES: 1.0,
    "counts": 0.1,
    "macs": 0.03,
    "amounts": 0.03,
    "choices": 0.01,
    "costs": 0.3,
    "kernels": 1.0,
    EXPONENTIAL: 0.01,
}
_EXPECTED_NOISE = 0.03
_WIDTH, _NOISE_WIDTH = 3.0, 2.0

# Structures that a device may have whatever the table says: these kernels and no others.
_STRUCTURES = (
    ("counts",),
    (DEVICES,),
    (DEVICES, "counts"),
    ("macs",),
    ("costs",),
    ("kernels",),
    ("kernels", "costs"),
)
_WITHOUT = -9.0


@dataclass(frozen=True)
class DeviceFactors:
    """The few combinations of devices along which a table varies.

    Attributes:
        mean: (D,) of the devices' functions.
        weights: (D, r) of the factors; the mean squared length of a row of factors is 1.
    """

    mean: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, functions: FloatArray, most: int) -> Self:
        """Principal components of functions (P, D), each device scaled to unit variance.

        Args:
            functions: (P, D) of the devices.
            most: Number of factors that are kept; more describe the noise of the table.
        """
        mean, std = functions.mean(axis=0), functions.std(axis=0)
        scaled = (functions - mean) / np.maximum(std, 1e-9)
        _, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
        kept = int(np.sum(sizes[:most] > 1e-6 * sizes[0]))
        weights = axes[:kept].T / np.maximum(std, 1e-9)[:, None]
        length = np.sqrt((((functions - mean) @ weights) ** 2).sum(axis=1).mean())
        return cls(mean, weights / length)

    def __call__(self, functions: FloatArray) -> FloatArray:
        """Factors (n, r) of functions (n, D)."""
        factors: FloatArray = (functions - self.mean) @ self.weights
        return factors

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays for `restore`."""
        return {"factors.mean": self.mean, "factors.weights": self.weights}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` described.

        Raises:
            KeyError: An array is missing.
        """
        return cls(arrays["factors.mean"], arrays["factors.weights"])


def kernel_names(blocks: Sequence[str], with_devices: bool) -> tuple[str, ...]:
    """The kernels of a new device's latency, in order; `blocks` are those that there are."""
    curved = [EXPONENTIAL] if "choices" in blocks else []
    return (*([DEVICES] if with_devices else []), *blocks, *curved)


def kernel(name: str, first: Blocks, second: Blocks) -> FloatArray:
    """One kernel (n, m) between blocks of n and of m configs; factors are the block `DEVICES`."""
    if name == EXPONENTIAL:
        found = np.exp(-0.5 * squared_distances(first["choices"], second["choices"]))
    else:
        found = first[name] @ second[name].T
    return np.asarray(found, dtype=np.float64)


def expected_weights(names: Sequence[str]) -> FloatArray:
    """Logarithms (J + 1,) of weights and noise before any device was seen."""
    return np.log([*(_EXPECTED[name] for name in names), _EXPECTED_NOISE])


def structures(names: Sequence[str]) -> FloatArray:
    """Hypotheses (h, J + 1) in logarithms: a few of the kernels alone."""
    rows = [
        [*(0.0 if name in structure else _WITHOUT for name in names), np.log(_EXPECTED_NOISE)]
        for structure in _STRUCTURES
        if set(structure) <= set(names)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names) + 1)


def learnt_weights(
    blocks: Blocks,
    functions: FloatArray,
    latencies: Sequence[FloatArray],
    families: Sequence[str],
    spread: float,
    factors: int,
) -> FloatArray:
    """Hypotheses (h, J + 1) in logarithms: the weights of each device, taken for an unseen one.

    Args:
        blocks: Features of P configs.
        functions: (P, D) of the devices.
        latencies: D times (P,), NaN where it was not measured.
        families: The family of each device.
        spread: Relative spread of latencies that counts as 1.
        factors: See `DeviceFactors.of`.
    """
    names = kernel_names(tuple(blocks), with_devices=True)
    centre = expected_weights(names)
    width = np.array([*[_WIDTH] * len(names), _NOISE_WIDTH])
    alike = _alike(functions, families)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(functions))
    found = []
    for device, latency in enumerate(latencies):
        others = functions[:, ~alike[device]]
        rows = order[~np.isnan(latency[order])][:_ROWS]
        if not others.shape[1] or len(rows) < len(names):
            continue
        own = {name: values[rows] for name, values in blocks.items()}
        own[DEVICES] = DeviceFactors.of(others, factors)(others)[rows]
        target = (latency[rows] / latency[rows].mean() - 1.0) / spread
        kernels = [kernel(name, own, own) for name in names] + [np.ones((len(rows), len(rows)))]
        # Behind the kernels stands the level, which says nothing about the device.
        found.append(
            np.delete(
                most_likely_weights(
                    kernels,
                    target - target.mean(),
                    np.insert(centre, -1, 0.0),
                    np.insert(centre, -1, 0.0),
                    np.insert(width, -1, 2.0),
                    _STEPS,
                ),
                len(names),
            )
        )
    return np.array(found).reshape(len(found), len(names) + 1)


def _alike(functions: FloatArray, families: Sequence[str]) -> NDArray[np.bool_]:
    """Which devices are left out with which (D, D): those of its family, and its likes."""
    same: NDArray[np.bool_] = np.array(families)[:, None] == np.array(families)
    if len(families) < 2:
        return same
    # A device of which nothing is known is constant, and like no other.
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.corrcoef(functions.T))
    distance = np.clip(1.0 - correlation, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    cluster = fcluster(tree, 1.0 - _ALIKE, "distance")
    together: NDArray[np.bool_] = same | (cluster[:, None] == cluster)
    return together
