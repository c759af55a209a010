"""The outer search's sampler: candidates for verified evaluations, a generation at a time."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from search.evolution.acquisition import Candidates, select_batch
from search.evolution.inner import EvolutionSettings, Scores, evolve
from search.evolution.operators import novel, novel_samples, offspring
from search.evolution.trials import (
    History,
    distributions,
    parameters,
    trial_history,
)
from search.objectives import Problem
from search.pareto import best_order
from spaces.population import unique
from spaces.space import Population, SearchSpace

FloatArray = NDArray[np.float64]
_FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
_ATTEMPTS = 2


class Surrogate(Protocol):
    """Predicts every metric of a problem; fitted on verified evaluations."""

    def predict(self, population: Population) -> Mapping[str, tuple[FloatArray, FloatArray]]:
        """Metric name -> (mean, std), (n,) each, in base units; std 0 where it is exact."""
        ...


class EvolutionSampler(BaseGASampler):
    """Evolution whose generations are verified evaluations.

    With a surrogate, an inner evolution searches the predictions, and the candidates that are
    expected to add most hypervolume are verified next (the outer loop of LINAS, DyNAS-T, with
    novelty enforced). Without one, a generation is a plain NSGA-II generation bred from everything
    verified. No config is verified twice.

    A generation is a function of the seed, its number and the stored trials of earlier generations
    alone. So a search that was interrupted goes on exactly as it would have.

    Two ways to drive it; one study keeps to one of them. The outer loop calls `ask_generation`,
    evaluates what `pending` says is missing, anywhere and in any order, and adds a trial for each
    (`search.evolution.make_trial` with `generation_attrs`). Or `study.optimize` with an objective
    that suggests every parameter of `search.evolution.distributions(space)`; its trials serve the
    members of the current generation one by one.

    Args:
        space: What is searched.
        problem: Objectives and constraints; `problem.directions` are the study's directions.
        population_size: Members of a generation in `study.optimize`, and parents of a plain one.
        seed: Source of all randomness.
        fit_surrogate: Called once a generation with everything verified before it; None, or its
            returning None, means a plain generation.
        inner: Size and length of the inner evolution.
    """

    def __init__(
        self,
        space: SearchSpace,
        problem: Problem,
        population_size: int = 16,
        seed: int = 0,
        fit_surrogate: Callable[[History], Surrogate | None] | None = None,
        inner: EvolutionSettings | None = None,
    ) -> None:
        super().__init__(population_size)
        self.space = space
        self.problem = problem
        self.seed = seed
        self.fit_surrogate = fit_surrogate
        self.inner = inner or EvolutionSettings()
        self._size = population_size
        self._distributions = distributions(space)
        self._members: dict[tuple[str, int], Population] = {}
        self._served: set[int] = set()
        self._created = datetime.now()

    # -- whole generations --------------------------------------------------------------------

    def ask_generation(
        self, study: Study, generation: int, count: int, surrogate: Surrogate | None = None
    ) -> Population:
        """The members of a generation, those already evaluated included.

        Args:
            study: Its trials of earlier generations decide; they must all be stored.
            generation: 0 or more.
            count: Members.
            surrogate: Used instead of what `fit_surrogate` would give.

        Returns:
            int16 (count, d), different configs that no earlier generation holds; fewer rows only
            when the space has no more.
        """
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, generation]))
        history = self.history(study, generation)
        if not len(history):
            return self._first(count, history, rng)
        if surrogate is None and self.fit_surrogate is not None:
            surrogate = self.fit_surrogate(history)
        if surrogate is None:
            return self._bred(history, count, rng)
        return self._predicted(history, surrogate, count, rng)

    def history(self, study: Study, generation: int | None = None) -> History:
        """Verified evaluations of the generations before `generation`; None: of all."""
        key = self._get_generation_key()
        trials = study.get_trials(deepcopy=False, states=_FINISHED)
        earlier = [
            t for t in trials if generation is None or t.system_attrs.get(key, -1) < generation
        ]
        return trial_history(self.space, self.problem, earlier, key)

    def pending(self, study: Study, generation: int, members: Population) -> NDArray[np.int64]:
        """Row numbers of `members` that have no finished trial in this generation."""
        key = self._get_generation_key()
        trials = study.get_trials(deepcopy=False, states=_FINISHED)
        own = [t for t in trials if t.system_attrs.get(key) == generation]
        done = {t.system_attrs.get(self._member_key()) for t in own}
        return np.array([i for i in range(len(members)) if i not in done], np.int64)

    def generation_attrs(self, generation: int, member: int) -> dict[str, int]:
        """System attributes that mark a trial as a member (row number) of a generation."""
        return {self._get_generation_key(): generation, self._member_key(): member}

    @classmethod
    def _member_key(cls) -> str:
        return f"{cls.__name__}:member"

    def _first(self, count: int, history: History, rng: np.random.Generator) -> Population:
        """The largest and the smallest config, which bound the front, and random ones."""
        ends = np.stack([self.space.max_config().indices, self.space.min_config().indices])
        ends = novel(self.space, ends, history.seen)
        fresh = novel_samples(self.space, count + 2, history.seen, rng)
        return unique(self.space, np.concatenate([ends, fresh]))[:count]

    def _bred(self, history: History, count: int, rng: np.random.Generator) -> Population:
        order = best_order(history.objectives, history.violation)[: self._size]
        parents = history.population[order]
        return offspring(self.space, parents, np.arange(len(order)), count, history.seen, rng)

    def _predicted(
        self, history: History, surrogate: Surrogate, count: int, rng: np.random.Generator
    ) -> Population:
        def score(population: Population) -> Scores:
            means = {name: mean for name, (mean, _) in surrogate.predict(population).items()}
            return Scores(self.problem.minimised(means), self.problem.violation(means))

        order = best_order(history.objectives, history.violation)
        elite = history.population[order[: self.inner.population]]
        evolved = evolve(self.space, score, self.inner, rng, initial=elite)
        # Neighbours of verified survivors keep a wrong surrogate from hiding all that is good.
        near = offspring(
            self.space,
            elite[: self._size],
            np.arange(min(len(elite), self._size)),
            self.inner.population // 2,
            history.seen,
            rng,
        )
        pool = novel(self.space, np.concatenate([evolved.population, near]), history.seen)
        if len(pool) < count:
            pool = novel(
                self.space,
                np.concatenate([pool, novel_samples(self.space, 2 * count, history.seen, rng)]),
                history.seen,
            )
        feasible = history.objectives[history.violation == 0]
        chosen = select_batch(self._candidates(pool, surrogate), feasible, count, rng)
        return pool[chosen]

    def _candidates(self, pool: Population, surrogate: Surrogate) -> Candidates:
        predicted = surrogate.predict(pool)
        means = {name: mean for name, (mean, _) in predicted.items()}
        stds = [o.minimised_std(*predicted[o.name]) for o in self.problem.objectives]
        feasibility = np.ones(len(pool))
        for constraint in self.problem.constraints:
            mean, std = predicted[constraint.name]
            spread = np.maximum(std, 1e-12 * np.maximum(np.abs(mean), 1e-12))
            if constraint.max is not None:
                feasibility *= ndtr((constraint.in_base(constraint.max) - mean) / spread)
            if constraint.min is not None:
                feasibility *= ndtr((mean - constraint.in_base(constraint.min)) / spread)
        return Candidates(
            pool,
            self.problem.minimised(means),
            np.stack(stds, axis=-1),
            feasibility,
            self.problem.violation(means),
        )

    # -- Optuna's side --------------------------------------------------------------------------

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The best verified trials of all earlier generations, at most `population_size`."""
        history = self.history(study, generation)
        order = best_order(history.objectives, history.violation)[: self._size]
        return [history.trials[i] for i in order]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every dimension with more than one choice."""
        return {name: d for name, d in self._distributions.items() if not d.single()}

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The generation of a trial; a new one joins the first that has members left."""
        key = self._get_generation_key()
        stored = trial.system_attrs.get(key)
        if stored is not None:
            return int(stored)
        trials = study.get_trials(deepcopy=False)
        generation = max((t.system_attrs.get(key, 0) for t in trials), default=0)
        members = self._members_of(study, generation)
        if self._done(trials, generation).issuperset(range(len(members))):
            generation += 1
        study._storage.set_trial_system_attr(trial._trial_id, key, generation)
        return int(generation)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next member of the current generation as parameters.

        A member of a killed process, whose trial is left running, and one whose trial failed once
        are served again. When all members are taken but not finished (parallel workers), a random
        novel config is served instead.
        """
        generation = self.get_trial_generation(study, trial)
        members = self._members_of(study, generation)
        taken = self._taken(study.get_trials(deepcopy=False), generation, trial)
        free = [i for i in range(len(members)) if i not in taken]
        if free:
            row, member = members[free[0]], free[0]
        else:
            seen = self.history(study).seen
            rng = np.random.default_rng([self.seed, generation, trial.number])
            extra = novel_samples(self.space, 1, seen, rng)
            if not len(extra):
                return {}
            row, member = extra[0], len(members) + trial.number
        self._served.add(trial._trial_id)
        study._storage.set_trial_system_attr(trial._trial_id, self._member_key(), member)
        values = parameters(self.space, row)
        return {name: values[name] for name in search_space if name in values}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a parameter that is no dimension of the space."""
        seed = zlib.crc32(f"{self.seed}/{trial.number}/{param_name}".encode())
        random = RandomSampler(seed=seed)
        return random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing: there is no generator whose state could be shared between workers."""

    def _members_of(self, study: Study, generation: int) -> Population:
        key = (study.study_name, generation)
        if key not in self._members:
            self._members[key] = self.ask_generation(study, generation, self._size)
        return self._members[key]

    def _own(self, trials: Sequence[FrozenTrial], generation: int) -> list[tuple[int, FrozenTrial]]:
        """(member, trial) of a generation."""
        key, member = self._get_generation_key(), self._member_key()
        return [
            (int(t.system_attrs[member]), t)
            for t in trials
            if t.system_attrs.get(key) == generation and member in t.system_attrs
        ]

    def _done(self, trials: Sequence[FrozenTrial], generation: int) -> set[int]:
        """Members that were evaluated, or whose evaluation failed too often."""
        own = self._own(trials, generation)
        failed = Counter(m for m, t in own if t.state is TrialState.FAIL)
        ended = {m for m, t in own if t.state in (TrialState.COMPLETE, TrialState.PRUNED)}
        return ended | {m for m, times in failed.items() if times >= _ATTEMPTS}

    def _taken(
        self, trials: Sequence[FrozenTrial], generation: int, trial: FrozenTrial
    ) -> set[int]:
        """Members that are done or being evaluated by a living worker."""
        running = {
            m
            for m, t in self._own(trials, generation)
            if t.state is TrialState.RUNNING
            and t._trial_id != trial._trial_id
            # A trial from before this sampler, not served by it, belongs to a process that is gone.
            and (
                t._trial_id in self._served
                or (t.datetime_start is not None and t.datetime_start >= self._created)
            )
        }
        return self._done(trials, generation) | running
