"""The roofline of a device (Williams et al., 2009): what no kernel on it can exceed, measured.

A kernel does operations on bytes. It takes at least as long as its operations take at the peak
rate of their kind, and as its bytes take at the bandwidth of the cache that holds them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MEMORY = "memory"
OPERATIONS_PER_MAC = 2
"""A multiply-accumulate counts as two operations."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """How fast one thread reads what lies in one level of the memory hierarchy.

    Attributes:
        level: `L1`, `L2`, `L3` or `memory`.
        capacity: Bytes that fit; None for memory.
        gbytes_per_s: Measured, 10^9 bytes per second.
    """

    level: str
    capacity: int | None
    gbytes_per_s: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The roof above one kernel.

    Attributes:
        limit: What limits it: `float32`, `int8`, or the level whose bandwidth does.
        seconds: The least time that it could take.
    """

    limit: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Measured peaks of one thread.

    Attributes:
        isa: Instruction set that they were measured on.
        float32_gops: Fused multiply-adds on float32, 10^9 operations per second (GFLOP/s).
        int8_gops: Exact u8 x s8 dot products, 10^9 operations per second.
        bandwidths: From the smallest cache to memory.
    """

    isa: str
    float32_gops: float
    int8_gops: float
    bandwidths: tuple[Bandwidth, ...]

    def bandwidth(self, size: int) -> Bandwidth:
        """That of the smallest level which holds `size` bytes."""
        return next(b for b in self.bandwidths if b.capacity is None or size <= b.capacity)

    def bound(self, macs: int, size: int, integer: bool) -> Bound:
        """The roof above a kernel whose tensors were used just before.

        Args:
            macs: Multiply-accumulates.
            size: Bytes of everything that it reads and writes.
            integer: Whether it multiplies integers.
        """
        bandwidth = self.bandwidth(size)
        peak = self.int8_gops if integer else self.float32_gops
        return max(
            Bound("int8" if integer else "float32", OPERATIONS_PER_MAC * macs / peak / 1e9),
            Bound(bandwidth.level, size / bandwidth.gbytes_per_s / 1e9),
            key=lambda bound: bound.seconds,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal roofline."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Roofline:
        """The roofline that `to_json` described."""
        return cls(**{**data, "bandwidths": tuple(Bandwidth(**b) for b in data["bandwidths"])})
