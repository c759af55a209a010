from __future__ import annotations

import pytest

from search.doctor import Check, Status, installation


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch, tmp_path):
    """TVM loads in a child for seconds; the command's test waits for it once, these need not."""
    monkeypatch.setattr(installation, "check_engine", lambda: Check("tvm", Status.OK, ""))
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / "runtime"))
    for name in ("NETCARVE_DB", "NETCARVE_ARTIFACTS", "NETCARVE_HOME"):
        monkeypatch.delenv(name, raising=False)
