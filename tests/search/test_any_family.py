"""Whole jobs on spaces of other families than the tiny job's, from training to report."""

from __future__ import annotations

import json

import pytest

from search.delivery import run
from search.job import parse_job
from search.progress import silent

pytestmark = pytest.mark.slow
RESNET = {
    "resolution": [8],
    "stem": [8],
    "block": "basic",
    "stages": [
        {"width": [16], "depth": [1], "expansion": [50, 100]},
        {"width": [16, 24], "depth": [1], "expansion": [100], "stride": 2},
    ],
}
ELASTICVIT = {
    "resolution": [16],
    "stem": {"width": [8], "depth": [1], "kernel": [3]},
    "conv_stages": [{"width": [8], "depth": [1], "expansion": [2], "kernel": [3]}],
    "transformer_stages": [
        {"heads": [1, 2], "depth": [1, 2], "mlp_ratio": [1], "value_scale": [1, 2]}
    ],
    "head_expansion": 2,
    "feature_width": 16,
    "norm": "layer",
}
FEW = {"reference_configs": 5, "batch": 1, "precision_twins": 1}


@pytest.mark.parametrize(
    ("family", "settings"),
    [("resnet", RESNET), ("elasticvit", ELASTICVIT)],
    ids=["resnet", "elasticvit"],
)
def test_a_job_ends_in_a_report_that_tells_its_front_and_in_a_bundle(
    workspace, tiny_job, family, settings
):
    common = {"input_channels": 1, "classes": 10, "schemes": ["fp32", "w8a8"]}
    job = {key: value for key, value in tiny_job.items() if key != "choices"} | {
        "name": family,
        "space": {"family": family, "settings": common | settings},
        "search": tiny_job["search"] | FEW,
        "export": {"bundles": 1, "archive": False},
    }
    work = workspace
    found = run(parse_job(job), work.store, work.artifacts, work.home, None, silent)
    (device,) = found.devices
    report = found.report.read_text()
    for member in device.front:
        assert f"| {member.key} | resolution " in report
    (bundle,) = device.bundles
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["config"]["resolution"] == settings["resolution"][0]
