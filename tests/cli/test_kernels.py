from __future__ import annotations

import json

import pytest
import yaml

from cli import progress

SMALL = {
    "base": "mobilenetv3_digits",
    "name": "small",
    "schemes": ["fp32"],
    "choices": {
        "resolution": [20], "stage*.depth": [1], "stage*.expansion": [2], "stage*.kernel": [3],
        "stem.width": [8], "stage1.width": [16], "stage2.width": [24], "stage3.width": [48],
        "head.width": [96], "stage*.se": [0],
    },
}  # fmt: skip
GEMM = {"template": "gemm", "m": 4, "k": 8, "n": 40}
CHOICE = {"kernel": GEMM, "isa": "avx2", "tile": {"rows": 4}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NETCARVE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_build_list_export_import(netcarve, tmp_path, monkeypatch):
    assert netcarve("device", "add", "cpu").exit_code == 0
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SMALL))
    assert netcarve("space", "register", tmp_path / "space.yaml", "--device", "cpu").exit_code == 0
    build = ("kernels", "build", "--space", "small", "--device", "cpu")
    begun = json.loads(netcarve(*build, "--limit", "0", "--json", "-q").stdout)
    assert (begun["timed"], begun["complete"]) == (0, False)
    assert "kernels build --space NAME" in netcarve("kernels", "list", "--device", "cpu").stdout
    # However fast the machine is: otherwise only a phase of some seconds says that it has ended.
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    done = netcarve(*build, "--json")
    report = json.loads(done.stdout)
    assert report["complete"]
    assert report["timed"] == report["tuned"] == report["kernels"] > 10
    assert f"kernels: {report['kernels']}/{report['kernels']}" in done.stderr
    # The base names the same space: the device's registration restricts it.
    base = ("kernels", "build", "--space", "mobilenetv3_digits", "--device", "cpu", "-q")
    assert f"known before       {report['kernels']}" in netcarve(*base).stdout

    timings = json.loads(netcarve("kernels", "list", "--device", "cpu", "--json").stdout)
    assert len(timings) == report["kernels"]
    times = [timing["median_us"] for timing in timings]
    assert times == sorted(times, reverse=True)
    assert "gemm m=" in netcarve("kernels", "list", "--device", "cpu").stdout
    choices = json.loads(netcarve("kernels", "list", "--json").stdout)
    assert len(choices) == report["kernels"]

    file = tmp_path / "choices.jsonl"
    assert json.loads(netcarve("kernels", "export", file, "--json").stdout)["choices"] == len(
        choices
    )
    again = json.loads(netcarve("kernels", "import", file, "--json").stdout)
    assert again == {"added": 0, "kept": len(choices)}
    monkeypatch.setenv("NETCARVE_CACHE", str(tmp_path / "elsewhere"))
    added = json.loads(netcarve("kernels", "import", file, "--json").stdout)
    assert added == {"added": len(choices), "kept": 0}
    assert json.loads(netcarve("kernels", "list", "--json").stdout) == choices


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import os", "line 2: not JSON"),
        (json.dumps(CHOICE | {"code": "x"}), "line 2: unknown key 'code'"),
        (json.dumps(CHOICE | {"kernel": GEMM | {"m": "4"}}), "line 2: kernel"),
        (json.dumps(CHOICE)[:-1], "line 2: not JSON"),
    ],
)
def test_one_bad_line_keeps_all_others_out(netcarve, tmp_path, line, message):
    good = json.dumps(CHOICE)
    other = json.dumps(CHOICE | {"isa": "avx512"})
    file = tmp_path / "choices.jsonl"
    file.write_text(f"{good}\n{line}\n{other}\n")
    done = netcarve("kernels", "import", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "No tile was chosen yet" in netcarve("kernels", "list").stdout
    file.write_text(f"{good}\n\n{other}\n")
    assert netcarve("kernels", "import", file).stdout == "2 choices added; 0 were known.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--space", "x", "--device", "cpu"], "unknown device 'cpu'"),
        (["list", "--device", "cpu"], "unknown device 'cpu'"),
        (["import", "/no/such/file"], "/no/such/file"),
        (["export", "/proc/no/such/file"], "/proc/no/such/file"),
        (["build", "--space", "x", "--device", "cpu", "--limit", "-1"], "--limit"),
    ],
)
def test_mistakes_end_with_2(netcarve, arguments, message):
    done = netcarve("kernels", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
