"""Which genes of a point count: what makes its row of choice indices canonical."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.dimension import Dimension, DimensionKind
from spaces.families import Slot
from spaces.quant_scheme import FLOAT_BITS, FORM_DIMENSIONS


class GeneGates:
    """The genes that decide whether others count.

    Args:
        dimensions: Those of a space, in the order of its genes.
        slots: The space's; they read none but these dimensions.
    """

    def __init__(self, dimensions: Sequence[Dimension], slots: Sequence[Slot]) -> None:
        self._dimensions = dimensions
        self._positions = {d.name: i for i, d in enumerate(dimensions)}
        self._gates = (*self._depth_gates(slots), *self._input_gates())
        self._form, self._bits, self._quantised = self._form_gate(slots)

    def active(self, population: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Which genes count in each row: bool (n, d)."""
        mask = np.ones(population.shape, np.bool_)
        for columns, decides, present in self._gates:
            mask[:, columns] &= present[population[:, decides]][:, None]
        if self._form.size:
            bits = self._bits
            chosen = mask[:, bits] & self._quantised[np.arange(len(bits)), population[:, bits]]
            mask[:, self._form] &= chosen.any(1, keepdims=True)
        return mask

    def _depth_gates(
        self, slots: Sequence[Slot]
    ) -> list[tuple[NDArray[np.int64], int, NDArray[np.bool_]]]:
        """(columns, column that decides, its index -> whether they count): the depth decides on
        the genes of a slot."""
        gates = []
        for slot in slots:
            if slot.depth is None:
                continue
            depth, least = slot.depth
            columns = [i for n, i in self._positions.items() if n.startswith(f"{slot.name}.")]
            decides = self._positions[depth]
            present = np.array([int(c) >= least for c in self._dimensions[decides].choices])
            gates.append((np.array(columns, np.int64), decides, present))
        return gates

    def _input_gates(self) -> list[tuple[NDArray[np.int64], int, NDArray[np.bool_]]]:
        """Likewise: weight bits decide on those of the layer's input, since a float32 layer reads
        float32."""
        gates = []
        for column, dimension in enumerate(self._dimensions):
            weight = f"{dimension.name.removesuffix('.a_bits')}.w_bits"
            if dimension.kind is not DimensionKind.A_BITS or weight not in self._positions:
                continue
            decides = self._positions[weight]
            quantised = np.array([c != FLOAT_BITS for c in self._dimensions[decides].choices])
            gates.append((np.array([column]), decides, quantised))
        return gates

    def _form_gate(
        self, slots: Sequence[Slot]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """(columns of the form, columns of weight bits, their index -> whether quantised).

        No columns of the form where a slot reads it that no weight bits decide on.
        """
        kinds = np.array([d.kind is DimensionKind.W_BITS for d in self._dimensions])
        form = np.array([i for n, i in self._positions.items() if n in FORM_DIMENSIONS], np.int64)
        for slot in slots:
            reads = np.array([self._positions[name] for name in slot.reads], np.int64)
            if np.isin(reads, form).any() and not kinds[reads].any():
                form = form[:0]
        bits = np.flatnonzero(kinds)
        most = max(len(d.choices) for d in self._dimensions)
        quantised = np.zeros((len(bits), most), np.bool_)
        for row, column in zip(quantised, bits, strict=True):
            choices = self._dimensions[int(column)].choices
            row[: len(choices)] = [choice != FLOAT_BITS for choice in choices]
        return form, bits, quantised
