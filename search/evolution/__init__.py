"""Evolution on whole populations: operators, the inner search, and the choice of candidates."""

from __future__ import annotations

from search.evolution.acquisition import select_batch
from search.evolution.inner import EvolutionSettings, Evolved, Scores, evolve
from search.evolution.operators import novel, novel_samples, offspring, tournament
from search.evolution.trials import (
    History,
    config_of_trial,
    distributions,
    make_trial,
    trial_history,
)

__all__ = [
    "EvolutionSettings",
    "Evolved",
    "History",
    "Scores",
    "config_of_trial",
    "distributions",
    "evolve",
    "make_trial",
    "novel",
    "novel_samples",
    "offspring",
    "select_batch",
    "tournament",
    "trial_history",
]
