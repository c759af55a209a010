"""Dimension: one thing that a search can choose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spaces.errors import SpaceError

Choice = int | str


class DimensionKind(StrEnum):
    """What a dimension varies."""

    DEPTH = "depth"
    WIDTH = "width"
    EXPANSION = "expansion"
    KERNEL = "kernel"
    SQUEEZE_EXCITE = "squeeze_excite"
    HEADS = "heads"
    FFN = "ffn"
    RESOLUTION = "resolution"
    W_BITS = "w_bits"
    A_BITS = "a_bits"
    GRANULARITY = "granularity"
    SYMMETRY = "symmetry"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A named, ordered tuple of choices.

    Attributes:
        name: Unique in its space, for example `stage2.block1.expand.w_bits`.
        kind: What it varies.
        choices: Distinct values, numbers ascending.

    Raises:
        SpaceError: No choice, a repeated choice, or numbers out of order.
    """

    name: str
    kind: DimensionKind
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise SpaceError(f"dimension {self.name!r} has no choice left")
        if len(set(self.choices)) != len(self.choices):
            raise SpaceError(f"dimension {self.name!r} repeats a choice: {self.choices}")
        numbers = [c for c in self.choices if isinstance(c, int)]
        if len(numbers) == len(self.choices) and numbers != sorted(numbers):
            raise SpaceError(f"choices of {self.name!r} must ascend: {self.choices}")

    def index(self, choice: Choice) -> int:
        """The position of `choice`.

        Raises:
            SpaceError: It is not a choice; the message lists those that are.
        """
        try:
            return self.choices.index(choice)
        except ValueError:
            allowed = ", ".join(map(str, self.choices))
            raise SpaceError(
                f"{self.name} = {choice!r} is not allowed; allowed: {allowed}"
            ) from None
