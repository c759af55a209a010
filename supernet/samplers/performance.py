"""Performance-aware sampling (ElasticViT, Tang et al. 2023): more training for what will be chosen.

Every level of complexity has a memory bank of the configs with the lowest loss so far. A step
either draws from the bank (exploits) or from the level's table (explores); among explored
candidates it prefers those whose complexity comes from width rather than from depth, measured
against the best of the smallest level that knows one. What we changed: banks of all levels have one
capacity; all widths and depths of the space count; a bank is asked only for configs of the step's
resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spaces.config import Config
from spaces.dimension import DimensionKind
from spaces.population import canonicalize
from spaces.space import Population
from supernet.samplers.base import SAMPLERS, SamplerConfig
from supernet.samplers.columns import columns
from supernet.samplers.complexity import Count, LevelSampler, LevelsConfig
from supernet.samplers.complexity_measure import complexity
from supernet.samplers.memory_bank import MemoryBank

_STAIRS = 6
_REFRESHES_PER_EPOCH = 4

Probability = Annotated[float, Field(ge=0, le=1)]


class PerformanceConfig(LevelsConfig):
    """Settings of `performance`.

    Attributes:
        capacity: Configs in the bank of a level.
        exploration: Candidates of which an exploring draw takes one.
        exploit_from: Probability of exploiting at the beginning.
        exploit_to: Probability of exploiting in the last sixth; it rises in equal stairs.
    """

    name: Literal["performance"] = "performance"
    capacity: Count = 50
    exploration: Count = 5
    exploit_from: Probability = 0.2
    exploit_to: Probability = 0.95


@SAMPLERS.register("performance")
class PerformanceSampler(LevelSampler):
    """Random configs from the level's bank or table. Banks keep whole configs, bits and all."""

    settings_type = PerformanceConfig
    config: PerformanceConfig

    def prepare(self) -> None:
        super().prepare()
        genes = len(self.space.names)
        self.banks = [MemoryBank(self.config.capacity, genes) for _ in self.levels]
        self._explored: dict[int, list[NDArray[np.int16]]] = {}
        # The width of a transformer stage is chosen by its heads.
        self._widths = columns(self.space, frozenset({DimensionKind.WIDTH, DimensionKind.HEADS}))
        self._depths = columns(self.space, DimensionKind.DEPTH)

    @classmethod
    def owns_bits(cls, config: SamplerConfig) -> bool:
        return True

    def exploit_probability(self, step: int) -> float:
        """How likely a draw of this step asks the bank."""
        stair = min(int(self.horizon.progress(step) * _STAIRS), _STAIRS - 1)
        first, last = self.config.exploit_from, self.config.exploit_to
        return first + (last - first) * stair / (_STAIRS - 1)

    def random_rows(self, step: int, rng: np.random.Generator) -> Population:
        number = self.level(step)
        bank, table = self.banks[number], self.levels[number].rows
        like = table[rng.integers(len(table))]
        table = self.at_one_resolution(table, like)
        allowed = (bank.rows == like)[:, self._resolution].all(1)
        rows, explored = [], []
        for _ in range(self.count):
            exploits = rng.random() < self.exploit_probability(step)
            if exploits and bank.more_than_half_full and allowed.any():
                rows.append(bank.draw(allowed, rng))
            else:
                rows.append(self._explore(bank, table, rng))
                explored.append(rows[-1])
        self._explored = {step: explored}
        return np.stack(rows)

    def _explore(
        self, bank: MemoryBank, table: Population, rng: np.random.Generator
    ) -> NDArray[np.int16]:
        chosen = table[rng.integers(0, len(table), self.config.exploration)]
        candidates = canonicalize(self.space, self.with_new_precisions(chosen, rng))
        anchors = [b.best() for b in self.banks if len(b)]
        place = 0
        if bank.more_than_half_full and anchors:
            place = int(self.depth_preference(candidates, anchors[0]).argmin())
        row: NDArray[np.int16] = candidates[place]
        return row

    def depth_preference(
        self, candidates: Population, anchor: NDArray[np.int16]
    ) -> NDArray[np.float64]:
        """How much of each candidate's complexity comes from depth rather than from width.

        Args:
            candidates: Rows (n, d).
            anchor: Row (d,) of a good config.

        Returns:
            float64 (n,): complexity with the anchor's widths less that with the anchor's depths.
        """
        return self._with(candidates, anchor, self._widths) - self._with(
            candidates, anchor, self._depths
        )

    def _with(
        self, rows: Population, anchor: NDArray[np.int16], replaced: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        moved = np.where(replaced, anchor, rows)
        return complexity(self.space, canonicalize(self.space, moved), self.config.measure)

    # -- what the trainer tells -----------------------------------------------------------------

    def to_score(self, step: int) -> list[Config]:
        """Configs explored in the step; every quarter of an epoch those of the level's bank as
        well, and those of all banks where an epoch begins."""
        _, place = self.horizon.place(step)
        quarter = max(1, self.horizon.steps_per_epoch // _REFRESHES_PER_EPOCH)
        banks: Iterable[MemoryBank] = ()
        if place == 0:
            banks = self.banks
        elif place % quarter == 0:
            banks = (self.banks[self.level(step)],)
        rows = [*self._explored.get(step, []), *(row for bank in banks for row in bank.rows)]
        return list(dict.fromkeys(self.space.from_indices(row) for row in rows))

    def observe(self, step: int, losses: Mapping[Config, float]) -> None:
        by_row = {config.indices.tobytes(): loss for config, loss in losses.items()}
        for bank in self.banks:
            for place, row in enumerate(bank.rows):
                if row.tobytes() in by_row:
                    bank.scores[place] = -by_row[row.tobytes()]
        for row in self._explored.get(step, []):
            self.banks[self.level(step)].add(row, -by_row[row.tobytes()])

    def memory(self) -> dict[str, Any]:
        return {"banks": [bank.to_json() for bank in self.banks]}

    def load_memory(self, memory: Mapping[str, Any]) -> None:
        for bank, data in zip(self.banks, memory["banks"], strict=True):
            bank.load(data)
