from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compilers.cuda_driver import find_gpus
from compilers.errors import DeviceError

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_it_says_so_and_has_no_figures(tmp_path):
    try:
        find_gpus()
    except DeviceError as error:
        missing = str(error)
    else:
        pytest.skip("a GPU is here")
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/cuda_vs_peers.py", "--json", file],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"nothing measured: {missing}"
    assert json.loads(file.read_text()) == {"figures": {}, "targets": {}}


def test_figures_are_ratios_to_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import cuda_vs_peers

    net = {"compiled": 3.0, "torch": 2.0}
    found = cuda_vs_peers.figures_of({"vit": {**net, "onnxruntime": 6.0}, "llama": {}})
    assert found == {"vit_vs_torch": 1.5, "vit_vs_onnxruntime": 0.5}
    found = cuda_vs_peers.figures_of(dict.fromkeys(cuda_vs_peers.STOCK, net))
    assert found["geomean_vs_torch"] == pytest.approx(1.5)
    assert len(found) == 6
