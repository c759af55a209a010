from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.errors import ObjectiveError
from search.objectives import METRICS, Constraint, Direction, Objective, Problem
from spaces.settings import explain


def refusal(model, data):
    """What a job file with this objective or constraint is refused with."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return explain(caught.value, model)


def test_a_bound_is_read_in_the_users_unit():
    constraint = Constraint.model_validate({"name": "latency", "max": 500, "unit": "us"})
    assert constraint.violation(0.5) == 0
    assert constraint.violation(0.75) == pytest.approx(0.5)
    assert constraint.key == "latency <= 500 us"
    window = Constraint.model_validate({"name": "accuracy", "min": 90, "max": 95, "unit": "%"})
    assert window.violation(np.array([0.92, 0.81, 0.9975])).tolist() == pytest.approx(
        [0, 0.1, 0.05]
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "latency"}, "'latency' has no unit; allowed: us, µs, ms, s"),
        ({"name": "latency", "unit": "kB"}, "unit 'kB'.*allowed: us"),
        ({"name": "latenci", "unit": "ms"}, "Did you mean 'latency'"),
        ({"name": "latency", "unit": "ms", "wieght": 1}, "unknown key 'wieght'"),
        ({"name": "latency", "unit": "ms", "direction": "up"}, "direction"),
        ({"name": ["accuracy"], "unit": "%"}, r"unknown metric \"\['accuracy'\]\""),
        ({"name": {"latency": 1}, "unit": "ms"}, "unknown metric"),
        ({"name": "latency", "unit": ["ms"]}, r"unit \['ms'\] of objective 'latency'; allowed: us"),
        ({"name": "latency", "unit": {"ms": 1}}, "allowed: us"),
        ({"name": None, "unit": "ms"}, "unknown metric 'None'"),
    ],
)
def test_a_bad_objective_is_explained(data, message):
    assert re.search(message, refusal(Objective, data))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "no bound"),
        ({"max": 0.5}, "no unit"),
        ({"max": -1, "unit": "%"}, "at least 0"),
        ({"max": float("nan"), "unit": "%"}, "finite"),
        ({"min": 99, "max": 98, "unit": "%"}, "min 99.0.*above its max"),
        ({"min": 101, "unit": "%"}, "largest possible value is 100 %"),
    ],
)
def test_a_bad_constraint_is_explained(bounds, message):
    data = {"name": "accuracy", **bounds}
    if not bounds:
        data["unit"] = "%"
    assert re.search(message, refusal(Constraint, data))


@pytest.mark.parametrize("name", ["latency", "size", "macs", "params"])
def test_nothing_takes_no_time_or_room(name):
    unit = next(iter(METRICS[name].units))
    refused = refusal(Constraint, {"name": name, "max": 0, "unit": unit})
    assert "cannot be met; give more than 0" in refused
    assert Constraint.model_validate({"name": name, "min": 0, "max": 1, "unit": unit}).min == 0


OBJECTIVES = (Objective.model_validate({"name": "accuracy", "unit": "%"}),)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "accuracy", "min": 95, "unit": "%"}, {"max": 90, "unit": "%"}),
        ({"name": "accuracy", "min": 95, "unit": "%"}, {"max": 0.9, "unit": "fraction"}),
        ({"name": "latency", "max": 500, "unit": "us"}, {"min": 1, "unit": "ms"}),
    ],
)
def test_constraints_that_contradict_each_other_are_refused(first, second):
    pair = [Constraint.model_validate(data) for data in (first, {"name": first["name"], **second})]
    for constraints in (pair, pair[::-1]):
        with pytest.raises(ObjectiveError) as caught:
            Problem(OBJECTIVES, tuple(constraints))
        assert all(constraint.key in str(caught.value) for constraint in pair)


def test_constraints_that_meet_are_fine():
    bounds = [("min", 90, "%"), ("min", 0.95, "fraction"), ("max", 95, "%"), ("max", 1, "fraction")]
    window = [
        Constraint.model_validate({"name": "accuracy", k: v, "unit": u}) for k, v, u in bounds
    ]
    size = Constraint.model_validate({"name": "size", "max": 1, "unit": "kB"})
    assert Problem(OBJECTIVES, (*window, size)).violation(
        {"accuracy": np.array([0.95]), "size": np.array([900.0])}
    ) == pytest.approx(0, abs=1e-9)


def test_directions_follow_the_metric_unless_given():
    assert (
        Objective.model_validate({"name": "accuracy", "unit": "%"}).direction is Direction.MAXIMIZE
    )
    assert Objective.model_validate({"name": "size", "unit": "kB"}).direction is Direction.MINIMIZE
    given_direction = Objective.model_validate(
        {"name": "size", "unit": "kB", "direction": "maximize"}
    )
    assert given_direction.direction is Direction.MAXIMIZE


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-3, 0.9), st.floats(1e-3, 0.9), st.data())
def test_smaller_minimised_is_better_and_units_do_not_matter(name, first, second, data):
    unit = data.draw(st.sampled_from(sorted(METRICS[name].units)))
    objective = Objective.model_validate({"name": name, "unit": unit})
    better = first > second if objective.direction is Direction.MAXIMIZE else first < second
    assert bool(objective.minimised(first) < objective.minimised(second)) == better
    problem = Problem((objective,))
    stored = problem.values({name: first})
    assert problem.minimised_values([stored])[0, 0] == pytest.approx(
        float(objective.minimised(first))
    )


def test_problem_sums_violations_and_lists_each_metric_once():
    problem = Problem(
        (Objective.model_validate({"name": "accuracy", "unit": "%"}),),
        (
            Constraint.model_validate({"name": "latency", "max": 1, "unit": "ms"}),
            Constraint.model_validate({"name": "accuracy", "min": 50, "unit": "%"}),
        ),
    )
    assert problem.names == ("accuracy", "latency")
    assert problem.directions == ["maximize"]
    metrics = {"accuracy": np.array([0.6, 0.4]), "latency": np.array([0.5, 3.0])}
    assert problem.violation(metrics).tolist() == pytest.approx([0.0, 2.2])
    assert problem.violations({"accuracy": 0.4, "latency": 0.5}) == {
        "latency <= 1 ms": 0.0,
        "50 <= accuracy %": pytest.approx(0.2),
    }
    assert (
        Constraint.model_validate({"name": "size", "max": 1, "unit": "kB"}).violation(np.nan)
        == np.inf
    )


def test_a_problem_needs_an_objective():
    with pytest.raises(ObjectiveError, match="at least one objective"):
        Problem(())
