"""Features of a population's subnets, slot by slot: each distinct slot is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.dimension import Dimension
from spaces.families import Slot
from spaces.layer_spec import LayerSpec

SlotFunction = Callable[[tuple[LayerSpec, ...]], NDArray[np.float64]]


class SlotFeatures:
    """What functions say of the slots of a space, remembered as long as this lives.

    Args:
        dimensions: Those of the space, in the order of its genes.
        slots: The space's; they read none but these dimensions.
    """

    def __init__(self, dimensions: Sequence[Dimension], slots: Sequence[Slot]) -> None:
        self._dimensions = dimensions
        self._positions = {d.name: i for i, d in enumerate(dimensions)}
        self._slots = slots
        self._tables: dict[tuple[SlotFunction, int], _SlotTable] = {}

    def of(self, population: NDArray[np.int16], function: SlotFunction) -> NDArray[np.float64]:
        """`function` of every slot's layers: float64 (n, slots, f) of a population (n, d), zero
        where a slot is absent."""
        columns = []
        for number, slot in enumerate(self._slots):
            values = self._table(number, function).rows(population)
            if slot.depth is not None:
                name, least = slot.depth
                depth = self._positions[name]
                present = np.array([int(c) >= least for c in self._dimensions[depth].choices])
                values = np.where(present[population[:, depth], None], values, 0.0)
            columns.append(values)
        return np.stack(columns, axis=1)

    def _table(self, number: int, function: SlotFunction) -> _SlotTable:
        key = (function, number)
        if key not in self._tables:
            slot = self._slots[number]
            columns = np.array([self._positions[name] for name in slot.reads], np.int64)
            read = [self._dimensions[column] for column in columns]
            self._tables[key] = _SlotTable(slot, columns, read, function)
        return self._tables[key]


class _SlotTable:
    """Remembered features of one slot, one row for every combination of the genes it reads."""

    # Beyond this many combinations a dense table would waste memory.
    _DENSE_LIMIT = 1 << 18

    def __init__(
        self,
        slot: Slot,
        columns: NDArray[np.int64],
        dimensions: Sequence[Dimension],
        function: SlotFunction,
    ) -> None:
        self.slot = slot
        self.columns = columns
        self.dimensions = dimensions
        self.function = function
        sizes = [len(d.choices) for d in self.dimensions]
        self.radix = np.cumprod([1, *sizes[:-1]]).astype(np.int64)
        self.size = int(np.prod(sizes))
        self.row_of: dict[int, int] = {}
        self.dense = np.full(self.size, -1, np.int64) if self.size <= self._DENSE_LIMIT else None
        self.values = np.zeros((0, 0))
        self.used = 0

    def rows(self, population: NDArray[np.int16]) -> NDArray[np.float64]:
        """Features (n, f) of the slot in every row of a population (n, d)."""
        keys = population[:, self.columns].astype(np.int64) @ self.radix
        if self.dense is not None:
            positions = self.dense[keys]
            for key in np.unique(keys[positions < 0]):
                self.dense[key] = self._compute(int(key))
            positions = self.dense[keys]
        else:
            distinct, inverse = np.unique(keys, return_inverse=True)
            for key in distinct:
                if int(key) not in self.row_of:
                    self.row_of[int(key)] = self._compute(int(key))
            positions = np.array([self.row_of[int(k)] for k in distinct], np.int64)[inverse]
        found: NDArray[np.float64] = self.values[positions]
        return found

    def _compute(self, key: int) -> int:
        digits = (key // self.radix) % np.array([len(d.choices) for d in self.dimensions])
        chosen = {d.name: d.choices[i] for d, i in zip(self.dimensions, digits, strict=True)}
        row = self.function(self.slot.layers(chosen))
        if self.used == len(self.values):
            grown = np.zeros((max(64, 2 * self.used), len(row)))
            if self.used:
                grown[: self.used] = self.values
            self.values = grown
        self.values[self.used] = row
        self.used += 1
        return self.used - 1
