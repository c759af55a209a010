"""One call of a kernel with what it must give, and what references in float64 are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from compilers.kernels.base import Kernel, LayerParams, QParams
from compilers.kernels.tiling import Tile
from spaces.layer_spec import Activation

INPUT = QParams(0.0231, 113)
RESIDUAL = QParams(0.0173, 97)
OUTPUT = QParams(0.0371, 71)
DTYPES = ("float32", "uint8")
NONE, RELU, HARDSWISH = Activation.NONE, Activation.RELU, Activation.HARDSWISH
GELU, SILU = Activation.GELU, Activation.SILU


@dataclass
class Case:
    kernel: Kernel
    x: np.ndarray
    residual: np.ndarray | None
    params: LayerParams
    expected: np.ndarray
    exact: bool = False
    every_tile: bool = False
    tile: Tile | None = None
    inputs: tuple[np.ndarray, ...] = ()


def real(values: np.ndarray, qparams: QParams) -> np.ndarray:
    if values.dtype != np.uint8:
        return values.astype(np.float64)
    return (values.astype(np.float64) - qparams.zero_point) * qparams.scale


def activate(values: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == RELU:
        return np.maximum(values, 0)
    if activation == HARDSWISH:
        return values * np.clip(values / 6 + 0.5, 0, 1)
    if activation == GELU:
        return values * torch.special.ndtr(torch.from_numpy(values)).numpy()
    if activation == SILU:
        return values / (1 + np.exp(-values))
    return values


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float32":
        return values
    return np.clip(np.rint(values / OUTPUT.scale) + OUTPUT.zero_point, 0, 255)


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)
