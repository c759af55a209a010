from __future__ import annotations

from pathlib import Path

from spaces.cache import default_cache


def test_the_users_choice_comes_first(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("NETCARVE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == Path("/home/somebody/.cache/netcarve")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache() == Path("/caches/netcarve")
    monkeypatch.setenv("NETCARVE_CACHE", "/own")
    assert default_cache() == Path("/own")
