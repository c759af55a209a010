"""SearchSpace: dimensions over the geometry of a family, and their points."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.capabilities import CHOSEN_OPERATORS, DeviceCapabilities
from spaces.config import Config
from spaces.dimension import Choice, Dimension
from spaces.errors import SpaceError, UnknownNameError
from spaces.families import Family, Slot, make_family
from spaces.genes import GeneGates
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import FORM_DIMENSIONS
from spaces.slot_features import SlotFeatures, SlotFunction

Population = NDArray[np.int16]


class SearchSpace:
    """An ordered tuple of dimensions over one family.

    A point is a row of choice indices, a population an int16 array (n, d) of rows; see
    `spaces.population` for the operators on populations.

    Args:
        name: What users call it.
        family: The geometry.
        choices: Fewer choices for some dimensions, by dimension name; the others keep those of
            the family. Made by `restrict`.

    Raises:
        SpaceError: A choice that the family does not have, or none left.
    """

    def __init__(
        self, name: str, family: Family, choices: Mapping[str, Sequence[Choice]] | None = None
    ) -> None:
        self.name = name
        self.family = family
        kept = dict(choices or {})
        dimensions = []
        for dimension in family.dimensions():
            chosen = kept.pop(dimension.name, dimension.choices)
            for choice in chosen:
                dimension.index(choice)
            ordered = tuple(c for c in dimension.choices if c in set(chosen))
            dimensions.append(Dimension(dimension.name, dimension.kind, ordered))
        self.dimensions: tuple[Dimension, ...] = tuple(dimensions)
        self.names = tuple(d.name for d in self.dimensions)
        self.positions: Mapping[str, int] = {name: i for i, name in enumerate(self.names)}
        """Dimension name -> column of a population."""
        if kept:
            raise UnknownNameError("dimension", next(iter(kept)), self.names)
        self.cardinalities = np.array([len(d.choices) for d in self.dimensions], np.int64)
        self.slots = tuple(self._without_absent_form(slot) for slot in family.slots())
        self._slot_features = SlotFeatures(self.dimensions, self.slots)

    def _without_absent_form(self, slot: Slot) -> Slot:
        """A form that the space does not choose has its default, which depends on nothing."""
        absent = set(FORM_DIMENSIONS) - self.positions.keys()
        return replace(slot, reads=tuple(name for name in slot.reads if name not in absent))

    @property
    def log10_size(self) -> float:
        """log10 of the number of points, counting skipped genes."""
        return float(np.log10(self.cardinalities).sum())

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that depend on the family, its settings and all choices."""
        text = json.dumps(self.to_json() | {"name": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def position(self, name: str) -> int:
        """Column of a dimension in a population.

        Raises:
            UnknownNameError: No dimension has this name.
        """
        try:
            return self.positions[name]
        except KeyError:
            raise UnknownNameError("dimension", name, self.names) from None

    # -- points ---------------------------------------------------------------------------------

    def active(self, population: Population) -> NDArray[np.bool_]:
        """Which genes count: bool (n, d), False for genes of blocks that the depth skips, for the
        input bits of float32 layers, and for the form where no layer is quantised."""
        return self._gates.active(population)

    @cached_property
    def _gates(self) -> GeneGates:
        return GeneGates(self.dimensions, self.slots)

    def from_indices(self, indices: ArrayLike) -> Config:
        """The canonical config of a row of choice indices (d,).

        Raises:
            SpaceError: Wrong length, or an index out of range.
        """
        row = np.array(indices, np.int16)
        if row.shape != self.cardinalities.shape:
            raise SpaceError(f"{row.size} indices for the {len(self.names)} dimensions of {self}")
        wrong = np.flatnonzero((row < 0) | (row >= self.cardinalities))
        if wrong.size:
            where = int(wrong[0])
            raise SpaceError(
                f"index {row[where]} of {self.names[where]} is out of range; "
                f"allowed: 0 to {self.cardinalities[where] - 1}"
            )
        row[~self.active(row[None])[0]] = 0
        return Config(self, row)

    def config(self, values: Mapping[str, Choice]) -> Config:
        """The config with these values; a dimension of a skipped block may be missing or out of
        this space's choices, since it does not count.

        Raises:
            UnknownNameError: A name is no dimension.
            SpaceError: A value is not allowed, or an active dimension has none.
        """
        for name in values:
            self.position(name)
        row = np.zeros(len(self.names), np.int16)
        for i, dimension in enumerate(self.dimensions):
            if values.get(dimension.name) in dimension.choices:
                row[i] = dimension.index(values[dimension.name])
        for column in np.flatnonzero(self.active(row[None])[0]):
            dimension = self.dimensions[int(column)]
            if dimension.name not in values:
                raise SpaceError(f"{dimension.name} has no value; allowed: {dimension.choices}")
            dimension.index(values[dimension.name])
        return self.from_indices(row)

    def contains(self, config: Config) -> bool:
        """Whether every active value of `config` is a choice of this space."""
        try:
            return self.config(config).key == config.key
        except (SpaceError, UnknownNameError):
            return False

    def max_config(self) -> Config:
        """Every dimension at its last, largest choice."""
        return self.from_indices(self.cardinalities - 1)

    def min_config(self) -> Config:
        """Every dimension at its first, smallest choice."""
        return self.from_indices(np.zeros(len(self.names)))

    # -- geometry -------------------------------------------------------------------------------

    def layer_specs(self, config: Config) -> tuple[LayerSpec, ...]:
        """The layers of the subnet, in the order of execution."""
        return tuple(
            layer
            for slot in self.slots
            if slot.depth is None or int(config[slot.depth[0]]) >= slot.depth[1]
            for layer in slot.layers(config)
        )

    def slot_features(self, population: Population, function: SlotFunction) -> NDArray[np.float64]:
        """`function` of every slot's layers, for a whole population at once.

        A slot's layers depend on few dimensions, so each distinct slot is computed once and
        remembered. Equal to calling `function` on each config's layers slot by slot.

        Args:
            population: int16 (n, d).
            function: Layers of one slot -> float (f,); must be a function or method that is
                asked again, not one made for this call: what it returns is remembered as long as
                the space lives. It is never called for an absent slot.

        Returns:
            float64 (n, slots, f), zero where a slot is absent.
        """
        return self._slot_features.of(population, function)

    def _dimension(self, name: str) -> Dimension:
        return self.dimensions[self.position(name)]

    # -- restriction ----------------------------------------------------------------------------

    def restrict(
        self,
        capabilities: DeviceCapabilities | None = None,
        choices: Mapping[str, Sequence[Choice]] | None = None,
    ) -> SearchSpace:
        """The sub-space that a device executes and a user wants: same names, fewer choices.

        Args:
            capabilities: Bit-widths, granularities, symmetries and operators that it does not list
                are removed.
            choices: Dimension name, or a pattern such as `stage*.kernel`, -> values to keep.

        Raises:
            SpaceError: A value that this space does not have, a dimension with none left, or a
                device without an operator that every subnet needs.
            UnknownNameError: A pattern that matches no dimension.
        """
        kept: dict[str, tuple[Choice, ...]] = {d.name: d.choices for d in self.dimensions}
        for pattern, wanted in (choices or {}).items():
            matching = [n for n in self.names if fnmatch.fnmatchcase(n, pattern)]
            if not matching:
                raise UnknownNameError("dimension", pattern, self.names)
            for name in matching:
                for choice in wanted:
                    self._dimension(name).index(choice)
                kept[name] = tuple(c for c in kept[name] if c in wanted)
        if capabilities is not None:
            for dimension in self.dimensions:
                allowed = capabilities.executed_choices(dimension)
                kept[dimension.name] = tuple(c for c in kept[dimension.name] if c in allowed)
        empty = [name for name, values in kept.items() if not values]
        if empty:
            raise SpaceError(
                f"nothing is left of {empty[0]} in {self.name}: it has "
                f"{self._dimension(empty[0]).choices}, and the device or the wanted values "
                "allow none of them"
            )
        restricted = SearchSpace(self.name, self.family, kept)
        if capabilities is not None:
            restricted._check_operators(capabilities)
        return restricted

    def unsupported(self, capabilities: DeviceCapabilities) -> dict[str, tuple[Choice, ...]]:
        """Dimension name -> choices that the device does not execute; empty when all do.

        Raises:
            SpaceError: No choice helps: the device has no operator that every subnet needs.
        """
        found = {}
        for dimension in self.dimensions:
            allowed = capabilities.executed_choices(dimension)
            removed = tuple(c for c in dimension.choices if c not in allowed)
            if removed:
                found[dimension.name] = removed
        chosen = {CHOSEN_OPERATORS[d.kind] for d in self.dimensions if d.kind in CHOSEN_OPERATORS}
        self._check_operators(capabilities, but=chosen)
        return found

    def _check_operators(
        self, capabilities: DeviceCapabilities, but: Collection[Operator] = ()
    ) -> None:
        """Refuse a device without an operator of the smallest subnet, other than those in `but`."""
        needed = {layer.operator for layer in self.layer_specs(self.min_config())}
        missing = needed - capabilities.operators - set(but)
        if missing:
            raise SpaceError(
                f"every subnet of {self.name} needs {', '.join(sorted(missing))}, which the "
                f"device does not execute; it executes: "
                f"{', '.join(sorted(capabilities.operators)) or 'no operator'}"
            )

    # -- JSON -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal space."""
        return {
            "name": self.name,
            "family": self.family.name,
            "settings": self.family.to_json(),
            "choices": {d.name: list(d.choices) for d in self.dimensions},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_json` described.

        Raises:
            UnknownNameError: No such family.
            ConfigError: The family refuses the settings.
        """
        family = make_family(str(data["family"]), data["settings"])
        return cls(str(data["name"]), family, data.get("choices"))

    def __repr__(self) -> str:
        return f"SearchSpace({self.name}, 10^{self.log10_size:.1f} configs)"
