"""The inner search: NSGA-II on predictions, a whole generation per numpy call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evolution.operators import novel_samples, offspring
from search.pareto import best_order
from spaces.population import hashes, unique
from spaces.space import Population, SearchSpace

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of a population.

    Attributes:
        objectives: (n, m), minimised, at least one column.
        violation: (n,) total constraint violation, 0 where feasible; None: no constraints.
    """

    objectives: FloatArray
    violation: FloatArray | None = None


ScoreFunction = Callable[[Population], Scores]


@dataclass(frozen=True)
class EvolutionSettings:
    """How long and how hard the inner search looks.

    Attributes:
        population: Survivors of a generation, at least 4.
        generations: Generations after the first.
    """

    population: int = 256
    generations: int = 60

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 0:
            raise ValueError(
                f"population {self.population} must be at least 4 and generations "
                f"{self.generations} at least 0"
            )


@dataclass(frozen=True)
class Evolved:
    """The last population, best first, and its scores: (n, d), (n, m), (n,)."""

    population: Population
    objectives: FloatArray
    violation: FloatArray


def evolve(
    space: SearchSpace,
    score: ScoreFunction,
    settings: EvolutionSettings,
    rng: np.random.Generator,
    initial: Population | None = None,
) -> Evolved:
    """NSGA-II (Deb et al., 2002) with duplicate elimination and constrained domination.

    Args:
        space: What is searched.
        score: Called once a generation with different configs, int16 (n, d).
        settings: Size and length.
        rng: All randomness.
        initial: Configs to start from, filled up with random ones; more than `population` are
            thinned to the best.

    Returns:
        The survivors of the last generation, best first. Fewer than `population` only in a space
        that has fewer configs.
    """
    size = settings.population
    start = np.empty((0, len(space.names)), np.int16) if initial is None else initial
    population = unique(space, start) if len(start) else start
    if len(population) < size:
        known = hashes(space, population)
        fresh = novel_samples(space, size - len(population), known, rng)
        population = np.concatenate([population, fresh])
    state = _survivors(_scored(population, score), size)
    for _ in range(settings.generations):
        children = offspring(
            space,
            state.population,
            np.arange(len(state.population)),
            size,
            hashes(space, state.population),
            rng,
        )
        if len(children):
            born = _scored(children, score)
            state = _survivors(_joined(state, born), size)
    return state


def _scored(population: Population, score: ScoreFunction) -> Evolved:
    scores = score(population)
    count = len(population)
    violation = np.zeros(count) if scores.violation is None else scores.violation
    if scores.objectives.shape[:1] != (count,) or violation.shape != (count,):
        raise ValueError(
            f"{count} configs were scored with objectives {scores.objectives.shape} and "
            f"violations {violation.shape}"
        )
    return Evolved(population, scores.objectives, violation)


def _joined(first: Evolved, second: Evolved) -> Evolved:
    return Evolved(
        np.concatenate([first.population, second.population]),
        np.concatenate([first.objectives, second.objectives]),
        np.concatenate([first.violation, second.violation]),
    )


def _survivors(state: Evolved, size: int) -> Evolved:
    order = best_order(state.objectives, state.violation)[:size]
    return Evolved(state.population[order], state.objectives[order], state.violation[order])
