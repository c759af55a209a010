"""MemoryBank: the best configs of a level that training has seen, with their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.space import Population


class MemoryBank:
    """At most `capacity` rows and scores; higher scores are better.

    Args:
        capacity: Most rows that it keeps.
        genes: Length of a row.
    """

    def __init__(self, capacity: int, genes: int) -> None:
        self.capacity = capacity
        self.rows: Population = np.zeros((0, genes), np.int16)
        self.scores: NDArray[np.float64] = np.zeros(0)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def more_than_half_full(self) -> bool:
        """Whether it knows enough configs to draw from."""
        return len(self) > self.capacity / 2

    def add(self, row: NDArray[np.int16], score: float) -> None:
        """Take a row in: one that it has gets the new score; a full bank gives up its worst row
        for a better one."""
        known = np.flatnonzero((self.rows == row).all(1))
        if known.size:
            self.scores[known[0]] = score
        elif len(self) < self.capacity:
            self.rows = np.vstack([self.rows, row[None]])
            self.scores = np.append(self.scores, score)
        elif score > self.scores.min():
            worst = int(self.scores.argmin())
            self.rows[worst], self.scores[worst] = row, score

    def best(self) -> NDArray[np.int16]:
        """The row (d,) of the highest score; the bank must not be empty."""
        row: NDArray[np.int16] = self.rows[int(self.scores.argmax())]
        return row

    def draw(self, allowed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int16]:
        """One of the rows where `allowed` (n,) holds, with the probabilities of the softmax of
        their scores."""
        places = np.flatnonzero(allowed)
        weights = np.exp(self.scores[places] - self.scores[places].max())
        row: NDArray[np.int16] = self.rows[rng.choice(places, p=weights / weights.sum())]
        return row

    def to_json(self) -> dict[str, Any]:
        """Rows and scores, as JSON."""
        return {"rows": self.rows.tolist(), "scores": self.scores.tolist()}

    def load(self, data: Mapping[str, Any]) -> None:
        """Become what `to_json` described."""
        genes = self.rows.shape[1]
        self.rows = np.array(data["rows"], np.int16).reshape(-1, genes)
        self.scores = np.array(data["scores"], np.float64)
