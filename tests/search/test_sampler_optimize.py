"""The sampler as Optuna's own `study.optimize` drives it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import optuna
import pytest
from optuna.trial import TrialState

from search.evolution import (
    config_of_trial,
    distributions,
)
from tests.search.sampler_table import (
    BATCH,
    Table,
    make_sampler,
    objective,
)


def test_optimize_serves_generations(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    study.optimize(objective(space, Table(space, 0)), n_trials=3 * BATCH + 2)
    assert [len(sampler.get_population(study, g)) for g in range(4)] == [BATCH] * 3 + [2]
    configs = {config_of_trial(space, t).key for t in study.trials}
    assert len(configs) == len(study.trials)
    members = make_sampler(space, problem).ask_generation(study, 2, BATCH)
    served = [config_of_trial(space, t).key for t in sampler.get_population(study, 2)]
    assert served == [space.from_indices(row).key for row in members]
    parents = sampler.get_parent_population(study, 2)
    assert len(parents) == BATCH
    assert {t.system_attrs["EvolutionSampler:generation"] for t in parents} <= {0, 1}


def test_a_failing_trial_is_tried_twice_then_left(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    evaluate, largest = objective(space, Table(space, 0)), space.max_config()

    def fragile(trial):
        values = evaluate(trial)
        if trial.params["resolution"] == 32 and trial.params == largest.to_json():
            raise RuntimeError("out of memory")
        return values

    study.optimize(fragile, n_trials=BATCH + 2, catch=(RuntimeError,))
    states = [t.state for t in study.trials]
    assert states.count(TrialState.FAIL) == 2
    assert len(sampler.get_population(study, 0)) == BATCH - 1
    assert len(sampler.get_population(study, 1)) == 1


def test_parallel_trials_are_all_different(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    trials = [study.ask(distributions(space)) for _ in range(BATCH + 3)]
    assert len({tuple(t.params.values()) for t in trials}) == BATCH + 3


KILLED = """
    import os, sys
    import optuna
    sys.path[:0] = [{tests!r}]
    import sampler_table as t
    from search.objectives import Objective, Problem
    from spaces import get_space

    space = get_space("mobilenetv3_digits")
    problem = Problem((
        Objective.model_validate({{"name": "accuracy", "unit": "%"}}),
        Objective.model_validate({{"name": "latency", "unit": "ms"}}),
    ))
    study = optuna.create_study(
        study_name="s", storage={storage!r}, directions=problem.directions, load_if_exists=True,
        sampler=t.make_sampler(space, problem, 3),
    )
    evaluate = t.objective(space, t.Table(space, 0))

    def dying(trial):
        values = evaluate(trial)
        if trial.number == 8:
            os._exit(9)
        return values

    study.optimize(dying, n_trials=15)
"""


@pytest.mark.slow
def test_a_killed_optimize_resumes_to_the_same_trials(space, problem, tmp_path, request):
    undisturbed = optuna.create_study(
        directions=problem.directions, sampler=make_sampler(space, problem, 3)
    )
    undisturbed.optimize(objective(space, Table(space, 0)), n_trials=10)

    storage = f"sqlite:///{tmp_path}/study.db"
    script = KILLED.format(tests=str(request.path.parent), storage=storage)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=request.config.rootpath, check=False
    )
    assert ended.returncode == 9
    study = optuna.load_study(
        study_name="s", storage=storage, sampler=make_sampler(space, problem, 3)
    )
    assert [t.state for t in study.trials][8:] == [TrialState.RUNNING]
    study.optimize(objective(space, Table(space, 0)), n_trials=2)
    complete = study.get_trials(states=[TrialState.COMPLETE])
    assert [t.params for t in complete] == [t.params for t in undisturbed.trials]
    assert [t.values for t in complete] == [t.values for t in undisturbed.trials]
