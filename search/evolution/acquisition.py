"""Which predicted candidates are worth a verified evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.pareto import best_order, improvement, non_dominated_boxes
from spaces.space import Population

FloatArray = NDArray[np.float64]

# Two candidates of one batch that differ in a smaller share of their genes discount each other.
_DISTINCT = 0.1
_DRAWS = 64
_NOTHING = 1e-9
_BLOCK = 32


@dataclass(frozen=True)
class Candidates:
    """Predictions of n candidates.

    Attributes:
        population: int16 (n, d).
        mean: (n, m) objectives, minimised.
        std: (n, m) their standard deviations, not negative.
        feasibility: (n,) probability that all constraints are met.
        violation: (n,) predicted total violation.
    """

    population: Population
    mean: FloatArray
    std: FloatArray
    feasibility: FloatArray
    violation: FloatArray


def select_batch(
    candidates: Candidates, verified: FloatArray, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Candidates of the largest expected hypervolume improvement, one after the other.

    The expectation is taken over draws from the predictions, times the probability of being
    feasible. A chosen candidate counts as verified at its predicted mean for the ones after it
    ("Kriging believer", Ginsbourger et al., 2010), and near copies of it are discounted. Where no
    improvement is expected, the best by constrained domination of the means are taken.

    Args:
        candidates: What there is to choose from; different configs.
        verified: (k, m) minimised objectives of the feasible verified configs; k may be 0.
        count: How many to choose.
        rng: Draws from the predictions.

    Returns:
        Row numbers (min(count, n),), the best first.
    """
    total, width = candidates.mean.shape
    if not total:
        return np.zeros(0, np.int64)
    known = np.concatenate([verified, candidates.mean])
    # Scales that one hopeless config cannot stretch come from the verified ones when there are any.
    frame = verified if len(verified) >= 2 else known
    low, span = frame.min(axis=0), np.ptp(frame, axis=0)
    span = np.where(span > 0, span, 1.0)
    archive = (verified - low) / span
    mean, std = (candidates.mean - low) / span, candidates.std / span
    reference = np.full(width, 1.1)
    noise = rng.standard_normal((_DRAWS, width))
    draws = mean[:, None, :] + std[:, None, :] * noise  # [n, draws, m]
    fallback = np.empty(total, np.int64)
    fallback[best_order(candidates.mean, candidates.violation)] = np.arange(total)
    weight = candidates.feasibility.copy()
    chosen: list[int] = []
    boxes = non_dominated_boxes(archive, reference)
    gain = improvement(draws, boxes).mean(axis=1) * weight
    for _ in range(min(count, total)):
        gain[chosen] = -1.0
        # Gains only shrink as the archive grows, so an old gain is an upper bound and the search
        # for the largest needs few new ones.
        stale = np.ones(total, dtype=np.bool_)
        while stale[best := int(np.argmax(gain))] and gain[best] > _NOTHING:
            top = np.argsort(-np.where(stale, gain, -1.0), kind="stable")[:_BLOCK]
            top = top[gain[top] >= 0]
            gain[top] = improvement(draws[top], boxes).mean(axis=1) * weight[top]
            stale[top] = False
        if gain[best] <= _NOTHING:
            left = np.where(np.isin(np.arange(total), chosen), total, fallback)
            best = int(np.argmin(left))
        chosen.append(best)
        archive = np.concatenate([archive, mean[best : best + 1]])
        boxes = non_dominated_boxes(archive, reference)
        different = (candidates.population != candidates.population[best]).mean(axis=1)
        weight *= np.minimum(1.0, different / _DISTINCT)
    return np.array(chosen, np.int64)
