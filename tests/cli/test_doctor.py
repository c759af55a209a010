from __future__ import annotations

import json

import pytest

from search import doctor
from search.doctor import Check, Status

GOOD = Check("cpu", Status.OK, "fine")
ODD = Check("cores", Status.WARNING, "1", "Use two.")
BAD = Check("linker", Status.PROBLEM, "none", "Install one.")


@pytest.mark.parametrize(("checks", "code"), [([GOOD], 0), ([GOOD, ODD], 0), ([BAD, GOOD], 1)])
def test_only_problems_end_with_1(netcarve, monkeypatch, checks, code):
    monkeypatch.setattr(doctor, "examine", lambda *_: checks)
    done = netcarve("doctor")
    assert done.exit_code == code
    for check in checks:
        assert check.found in done.stdout
        assert check.advice in done.stdout
    done = netcarve("doctor", "--json")
    assert done.exit_code == code
    assert json.loads(done.stdout) == [check.to_json() for check in checks]


@pytest.mark.slow
def test_this_machine(netcarve, home):
    done = netcarve("doctor", "--json")
    assert done.exit_code == 0, done.stdout
    names = {check["name"] for check in json.loads(done.stdout)}
    assert {"packages", "linker", "cpu", "memory", "database", "artifacts"} <= names
    assert not home.exists()
