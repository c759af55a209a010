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

    Genes of blocks that a shallower depth skips do not count: they stand at their first choice
    and take no part in `key`, so that one subnet has one config. Equality and hashing go by
    `key`, which depends on names and values only: the same subnet has the same key in a space
    and in its restrictions. Made by `SearchSpace.config` and `SearchSpace.from_indices`.
    """

    __slots__ = ("_indices", "_key", "space")

    def __init__(self, space: SearchSpace, indices: NDArray[np.int16]) -> None:
        self.space = space
        self._indices = indices
        self._indices.setflags(write=False)
        active = {
            name: dimension.choices[index]
            for name, dimension, index, on in zip(
                space.names, space.dimensions, indices, space.active(indices[None])[0], strict=True
            )
            if on
        }
        text = json.dumps(active, sort_keys=True, separators=(",", ":"))
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
        # Not `space.position`: composing its message takes longer than all else that `get` and `in`
        # do, and a mapping is asked for absent names all the time.
        position = self.space.positions[name]
        return self.space.dimensions[position].choices[int(self._indices[position])]

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

    def to_json(self) -> dict[str, Any]:
        """Dimension name -> value, for every dimension of the space."""
        return dict(self)
