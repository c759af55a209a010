"""Levels of complexity: for each a table of configs and the smallest config that is trained there.

ElasticViT (Tang et al. 2023) draws the configs of its levels by rejection into an offline table,
and gives ranges of levels smallest configs of their own ("hierarchical smallest subnets"), so that
no step trains configs of very different sizes. What we changed: candidates come from one vectorised
draw whose bias towards small or large choices varies, so that they cover all levels; a level is a
relative window; the smallest configs are found on the space's diagonal instead of written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.population import canonicalize, unique
from spaces.space import Population, SearchSpace
from supernet.errors import SupernetConfigError
from supernet.samplers.columns import UNORDERED, columns
from supernet.samplers.complexity_measure import Measure, complexity

_STEEPEST_BIAS = 6.0
# A level's smallest config has at most this share of the level's complexity, which leaves room for
# configs that are at least as large in every dimension.
_SMALLEST_SHARE = 0.5
_DIAGONAL_STEPS = 64


@dataclass(frozen=True, slots=True)
class Level:
    """Configs of about one complexity.

    Attributes:
        complexity: Its lower end.
        smallest: Row (d,) that every config of the level dominates: none of its dimensions, but
            those without an order, is smaller.
        rows: The table (n, d) of configs.
    """

    complexity: float
    smallest: NDArray[np.int16]
    rows: Population


def spread_levels(space: SearchSpace, measure: Measure, count: int) -> list[float]:
    """`count` complexities between those of the smallest and the largest config, equal in ratio.

    Raises:
        SupernetConfigError: All configs have one complexity.
    """
    ends = np.stack([np.zeros(len(space.names)), space.cardinalities - 1]).astype(np.int16)
    low, high = complexity(space, ends, measure)
    if not low < high:
        raise SupernetConfigError(
            f"levels of complexity: all configs of {space.name} have {low:.0f} {measure}; allowed: "
            "a space with configs of different complexity, or sampler sandwich or uniform"
        )
    shares = np.arange(1, count + 1) / (count + 1)
    return [float(value) for value in low * (high / low) ** shares]


def build_levels(
    space: SearchSpace,
    measure: Measure,
    complexities: Sequence[float],
    width: float,
    smallest: int,
    candidates: int,
    seed: int,
    exact: bool,
) -> list[Level]:
    """The table of every level.

    Args:
        space: Where to draw.
        measure: What complexity counts.
        complexities: Lower ends, ascending.
        width: A level reaches from its lower end F to F (1 + width).
        smallest: Smallest configs, for as many ranges of levels; the first is the space's own.
        candidates: Configs drawn for each range.
        seed: Decides the tables.
        exact: Levels are where they are wanted; else each moves to the nearest candidate, and one
            that meets the level below it is left out.

    Raises:
        SupernetConfigError: No candidate falls into an exact level, or fewer than two levels are
            left.
    """
    rng = np.random.default_rng(seed)
    levels: list[Level] = []
    groups = [group for group in np.array_split(np.array(complexities), smallest) if group.size]
    for number, group in enumerate(groups):
        least = np.zeros(len(space.names), np.int16)
        if number:
            least = _largest_on_diagonal(space, measure, _SMALLEST_SHARE * group[0])
        rows = unique(space, _biased_rows(space, least, candidates, rng))
        found = complexity(space, rows, measure)
        for wanted in group:
            lower = wanted if exact else found[np.abs(np.log(found / wanted)).argmin()]
            inside = (found >= lower) & (found <= lower * (1 + width))
            if not inside.any():
                raise SupernetConfigError(
                    f"no config of {space.name} was found with {lower:.0f} to "
                    f"{lower * (1 + width):.0f} {measure}; {len(rows)} candidates have "
                    f"{found.min():.0f} to {found.max():.0f}; allowed: levels in this range, a "
                    "larger width, or more candidates"
                )
            if not levels or lower > levels[-1].complexity:
                levels.append(Level(float(lower), least, rows[inside]))
    if len(levels) < 2:
        raise SupernetConfigError(
            f"levels of complexity: {space.name} has configs at one level of {measure} only; "
            "allowed: more levels, or sampler sandwich or uniform"
        )
    return levels


def _largest_on_diagonal(space: SearchSpace, measure: Measure, bound: float) -> NDArray[np.int16]:
    """The largest config of at most `bound` whose ordered dimensions all stand at one share of
    their choices; the smallest config of the space if there is none."""
    shares = np.linspace(0, 1, _DIAGONAL_STEPS + 1)[:, None]
    rows = np.floor(shares * (space.cardinalities - 1)[None] + 0.5).astype(np.int16)
    rows[:, columns(space, UNORDERED)] = 0
    rows = canonicalize(space, rows)
    fitting = np.flatnonzero(complexity(space, rows, measure) <= bound)
    chosen: NDArray[np.int16] = rows[fitting[-1] if fitting.size else 0]
    return chosen


def _biased_rows(
    space: SearchSpace, least: NDArray[np.int16], count: int, rng: np.random.Generator
) -> Population:
    """Canonical rows (count, d) that dominate `least`.

    A row's choices i are drawn with probabilities proportional to exp(b i / (choices - 1)), with a
    bias b of its own: of all distributions with the same mean these have the most entropy.
    """
    ordered = ~columns(space, UNORDERED)
    lowest = np.where(ordered, least, 0)
    span = space.cardinalities - lowest
    bias = rng.uniform(-_STEEPEST_BIAS, _STEEPEST_BIAS, (count, 1))
    slope = np.where(ordered, bias / np.maximum(span - 1, 1), 0.0)
    slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)
    # The inverse of a geometric distribution that is cut off at the last choice.
    uniform = rng.random((count, len(span)))
    index = np.floor(np.log1p(uniform * np.expm1(slope * span)) / slope)
    return canonicalize(space, (lowest + np.clip(index, 0, span - 1)).astype(np.int16))
