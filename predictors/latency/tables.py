"""Latency tables: what other devices took for configs of a space."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from predictors.errors import InvalidTargetError, TableError
from predictors.latency.configs import Configs, FloatArray, Rows


@dataclass(frozen=True)
class LatencyTables:
    """Latencies of the same configs on several devices.

    Attributes:
        configs: The configs, P of them.
        latencies: Device -> (P,) ms, NaN where it was not measured.
        families: Device -> family: devices of one family (the batches of one GPU, the thread counts
            of one runtime) resemble each other more than a new device resembles them. A device that
            is not listed is a family of its own.

    Raises:
        TableError: A length that is not P, or a family of a device that has no latencies.
        InvalidTargetError: A latency that is infinite or not above 0, or a device whose latencies
            are all the same or that has none.
    """

    configs: Configs
    latencies: Mapping[str, FloatArray]
    families: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - set(self.latencies))
        if unknown:
            raise TableError(f"a family is given for {unknown[0]!r}, which has no latencies")
        for device, values in self.latencies.items():
            if values.shape != (len(self.configs),):
                raise TableError(
                    f"device {device!r}: latencies of shape {values.shape} for "
                    f"{len(self.configs)} configs"
                )
            bad = np.flatnonzero(~np.isnan(values) & ~(np.isfinite(values) & (values > 0)))
            if bad.size:
                raise InvalidTargetError(
                    f"device {device!r}: latency number {bad[0]} is {values[bad[0]]} ms, must be "
                    "finite and above 0"
                )
            known = values[~np.isnan(values)]
            if len(known) < 2 or np.ptp(known) <= 1e-9 * known.max():
                what = f"all {len(known)} latencies are {known[0]} ms" if len(known) else "none"
                raise InvalidTargetError(
                    f"device {device!r}: latencies of different configs must differ, got {what}"
                )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, in the order of the table."""
        return tuple(self.latencies)

    def family(self, device: str) -> str:
        """The family of a device."""
        return self.families.get(device, device)

    def take(self, rows: Rows) -> LatencyTables:
        """The table of some of the configs, without devices that have no two latencies there."""
        kept = {
            device: values[rows]
            for device, values in self.latencies.items()
            if len(np.unique(values[rows][~np.isnan(values[rows])])) > 1
        }
        families = {device: f for device, f in self.families.items() if device in kept}
        return LatencyTables(self.configs.take(rows), kept, families)

    def without(self, devices: Collection[str]) -> LatencyTables:
        """The table of the other devices."""
        kept = {d: values for d, values in self.latencies.items() if d not in devices}
        return LatencyTables(
            self.configs, kept, {d: f for d, f in self.families.items() if d in kept}
        )

    def members(self, family: str) -> tuple[str, ...]:
        """The devices of a family."""
        return tuple(device for device in self.devices if self.family(device) == family)
