from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from spaces import UnknownNameError
from spaces.registry import Registry


def test_own_names_and_plug_ins(monkeypatch):
    registry: Registry[object] = Registry("thing", "netcarve.things")
    registry.register("own")(1)
    plug_in = EntryPoint("tau", "math:tau", "netcarve.things")
    monkeypatch.setattr(
        "spaces.registry.entry_points", lambda **want: EntryPoints([plug_in]).select(**want)
    )
    assert registry.names() == ["own", "tau"]
    assert registry.get("own") == 1
    assert registry.get("tau") == pytest.approx(6.283, abs=1e-3)
    with pytest.raises(UnknownNameError, match=r"unknown thing 'tua'.*'tau'.*Known: own, tau"):
        registry.get("tua")
    with pytest.raises(ValueError, match="twice"):
        registry.register("own")(2)
