"""Config: one point of a search space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.dimension import Choice

if TYPE_CHECKING:
    from spaces.space import SearchSpace


class Config(Mapping[str, Choice]):
    """An immutable, canonical point: a mapping from dimension names to chosen values.

    Genes of blocks that a shallower depth skips do not count, nor those of a quantisation that no
    layer has: they stand at their first choice and take no part in `key`, so that one subnet has
    one config. Equality and hashing go by `key`, which depends on names and values only: the same
    subnet has the same key in a space and in its restrictions. Made by `SearchSpace.config` and
    `SearchSpace.from_indices`.
    """

    __slots__ = ("_indices", "_key", "_values", "space")

    def __init__(self, space: SearchSpace, indices: NDArray[np.int16]) -> None:
        self.space = space
        self._indices = indices
        self._indices.setflags(write=False)
        self._values: dict[str, Choice] = {
            dimension.name: dimension.choices[index]
            for dimension, index in zip(space.dimensions, indices, strict=True)
        }
        text = json.dumps(self.active(), sort_keys=True, separators=(",", ":"))
        self._key = hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def indices(self) -> NDArray[np.int16]:
        """Choice indices (d,), read-only."""
        return self._indices

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this subnet."""
        return self._key

    def __getitem__(self, name: str) -> Choice:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.space.names)

    def __len__(self) -> int:
        return len(self.space.names)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Config) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Config({self.space.name}, {self._key})"

    def active(self) -> dict[str, Choice]:
        """Dimension name -> value, of the genes that count."""
        present = zip(self._values.items(), self.space.active(self._indices[None])[0], strict=True)
        return dict(item for item, on in present if on)

    def to_json(self) -> dict[str, Any]:
        """Dimension name -> value, for every dimension of the space."""
        return dict(self)
