from __future__ import annotations

import sys

from search.doctor import Status, examine


def test_a_ready_machine_has_no_problem_and_nothing_is_created(tmp_path):
    checks = examine(tmp_path / "home")
    assert [c for c in checks if c.status is Status.PROBLEM] == []
    assert all(c.advice for c in checks if c.status is not Status.OK)
    assert not (tmp_path / "home").exists()


def test_a_broken_installation_is_a_problem_not_a_crash(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "compilers.build", None)
    (found,) = [check for check in examine(tmp_path) if check.name == "linker"]
    assert found.status is Status.PROBLEM
    assert "cannot be checked" in found.found
