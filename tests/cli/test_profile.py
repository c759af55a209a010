from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest

from compilers.devices import LocalCpu
from search import bundles
from search.host_lock import HostLock

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def profiled(bundle, tmp_path_factory):
    """The profile of the bundle, and who held the host lock while it was measured."""
    held = []

    def looking(method):
        original = getattr(LocalCpu, method)

        def look(self, *arguments):
            held.append([(holder.mode, holder.purpose) for holder in HostLock().holders()])
            return original(self, *arguments)

        return look

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        for method in ("profile", "time", "roofline"):
            patch.setattr(LocalCpu, method, looking(method))
        return bundles.profile(f"{bundle}.tar.gz"), held


@pytest.fixture
def stored(profiled, monkeypatch):
    """The command prints this profile, of a steady machine, instead of measuring again."""
    found, _ = profiled
    steady = replace(found, latency=replace(found.latency, drift=1.0, reference_drift=1.0))
    monkeypatch.setattr(bundles, "profile", lambda *_: steady)
    return steady


def test_a_profile_owns_its_host(profiled, bundle):
    _, held = profiled
    assert held == [[("exclusive", f"profiling the bundle {bundle}.tar.gz")]] * 3


def test_it_prints_a_row_for_each_kernel(netcarve, bundle, stored):
    done = netcarve("profile", bundle)
    assert done.exit_code == 0, done.stderr
    summary, table = done.stdout.split("\n\n")
    for words in ("latency ", "cold cache ", "kernels ", "GFLOP/s", "workspace"):
        assert words in summary
    assert "warning" not in summary
    header, _, *rows = table.splitlines()
    assert header.split()[:4] == ["site", "kernel", "shape", "computes"]
    assert [row.split()[:2] for row in rows] == [
        ["stem", "Conv"], ["pool", "GlobalPool"], ["classifier", "Gemm"]
    ]  # fmt: skip
    assert "1x1x12x12 -> 36x16, 3x3 stride 2" in rows[0]
    assert "1x16 -> 1x10 " in rows[2]


def test_it_warns_of_a_machine_that_slowed_down(netcarve, bundle, stored, monkeypatch):
    slow = replace(stored, latency=replace(stored.latency, drift=1.2))
    monkeypatch.setattr(bundles, "profile", lambda *_: slow)
    assert "slower" in netcarve("profile", bundle).stdout
    assert json.loads(netcarve("profile", bundle, "--json").stdout)["throttled"] is True


def test_it_writes_a_plot_and_json(netcarve, bundle, stored, tmp_path):
    done = netcarve("profile", bundle, "--json", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    written = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert printed == {"bundle": str(bundle), **written}
    assert [kernel["site"] for kernel in printed["kernels"]] == ["stem", "pool", "classifier"]
    image = (tmp_path / "out" / "roofline.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    assert width > height > 300


def test_what_is_no_bundle_is_an_error(netcarve, tmp_path):
    done = netcarve("profile", tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "not a bundle" in done.stderr
