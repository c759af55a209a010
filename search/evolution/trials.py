"""Between populations and Optuna trials: every dimension of a space is a parameter of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.objectives import Problem
from spaces import Config, Dimension
from spaces.population import canonicalize, hashes
from spaces.space import Population, SearchSpace

FloatArray = NDArray[np.float64]


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension as an Optuna distribution over its values, as a dashboard shows them.

    Evenly spaced numbers become an `IntDistribution`, so that they plot on an ordered axis; other
    choices a `CategoricalDistribution`.
    """
    numbers = [c for c in dimension.choices if isinstance(c, int)]
    if len(numbers) == len(dimension.choices):
        steps = set(np.diff(numbers).tolist())
        if len(steps) <= 1:
            return IntDistribution(numbers[0], numbers[-1], step=int(min(steps, default=1)))
    return CategoricalDistribution(dimension.choices)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The distribution of every dimension, by name."""
    return {dimension.name: distribution(dimension) for dimension in space.dimensions}


def parameters(space: SearchSpace, row: NDArray[np.int16]) -> dict[str, Any]:
    """Dimension name -> value of a row (d,) of choice indices."""
    return {
        dimension.name: dimension.choices[int(index)]
        for dimension, index in zip(space.dimensions, row, strict=True)
    }


def trial_row(space: SearchSpace, trial: FrozenTrial) -> NDArray[np.int16] | None:
    """Choice indices (d,) of a trial; None if it is not a point of this space."""
    row = np.zeros(len(space.names), np.int16)
    for column, dimension in enumerate(space.dimensions):
        value = trial.params.get(dimension.name)
        if value not in dimension.choices:
            return None
        row[column] = dimension.choices.index(value)
    return row


def config_of_trial(space: SearchSpace, trial: FrozenTrial) -> Config | None:
    """The config that a trial evaluated; None if it is not a point of this space."""
    row = trial_row(space, trial)
    return None if row is None else space.from_indices(row)


def make_trial(
    space: SearchSpace,
    problem: Problem,
    config: Config,
    metrics: Mapping[str, float] | None,
    generation_attrs: Mapping[str, int],
    user_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A finished trial for `study.add_trial`.

    Args:
        space: The study's space.
        problem: Objectives give the values, in their own units; constraints the violations.
        config: What was evaluated; a point of `space`.
        metrics: Verified metrics in base units; None: the evaluation failed for good.
        generation_attrs: From `EvolutionSampler.generation_attrs`.
        user_attrs: Anything else to show, JSON-ready.

    Returns:
        A trial in state COMPLETE, or FAIL without metrics.
    """
    shared: dict[str, Any] = {
        "params": parameters(space, config.indices),
        "distributions": distributions(space),
        "system_attrs": dict(generation_attrs),
        "user_attrs": {"config": config.key, **(user_attrs or {})},
    }
    if metrics is None:
        return create_trial(state=TrialState.FAIL, **shared)
    return create_trial(
        state=TrialState.COMPLETE,
        values=problem.values(metrics),
        constraints=problem.violations(metrics),
        **shared,
    )


@dataclass(frozen=True)
class History:
    """Verified evaluations, in an order that does not depend on when each of them ended.

    Attributes:
        trials: The complete trials.
        population: int16 (k, d) of them.
        objectives: (k, m), minimised.
        violation: (k,) total constraint violation.
        seen: Hashes uint64 of everything tried, failed evaluations included.
    """

    trials: tuple[FrozenTrial, ...]
    population: Population
    objectives: FloatArray
    violation: FloatArray
    seen: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.trials)


def trial_history(
    space: SearchSpace, problem: Problem, trials: Sequence[FrozenTrial], generation_key: str
) -> History:
    """Arrays from finished trials. Trials that are no points of the space are left out.

    Args:
        space: The study's space.
        problem: The study's objectives and constraints.
        trials: Finished trials, in any order.
        generation_key: System attribute that holds a trial's generation.
    """
    points = [(t, row) for t in trials if (row := trial_row(space, t)) is not None]
    rows = np.array([row for _, row in points], np.int16).reshape(-1, len(space.names))
    rows = canonicalize(space, rows)
    codes = hashes(space, rows)
    generations = [t.system_attrs.get(generation_key, -1) for t, _ in points]
    order = np.lexsort((codes, np.array(generations, np.int64)))
    kept = [int(i) for i in order if points[i][0].state is TrialState.COMPLETE]
    complete = tuple(points[i][0] for i in kept)
    violation = [sum(max(0.0, v) for v in t.constraints.values()) for t in complete]
    return History(
        complete,
        rows[kept],
        problem.minimised_values([t.values for t in complete]),
        np.array(violation, np.float64),
        codes,
    )
