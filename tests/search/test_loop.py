"""A whole tiny job, once, with everything real; then what it left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest

from search import delivery
from search.errors import SearchError
from search.export import export_front
from search.job import parse_job
from search.loop import _resolve, resume_job, run_job
from search.models import Purpose
from search.progress import silent
from search.report import job_report, write_report
from search.results import at_bits
from search.stored_job import device_results, front
from search.workspace import Workspace
from spaces import NetcarveError, SpaceError, UnknownNameError, cost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DEVICE = "cpu-avx2"


def _run(workspace: Workspace, tiny_job, **change) -> delivery.Delivery:
    settings = parse_job(tiny_job | change)
    return delivery.run(
        settings, workspace.store, workspace.artifacts, workspace.home, None, silent
    )


def test_every_verified_evaluation_is_one_trial_and_one_measurement(workspace, delivered):
    store = workspace.store
    evaluated = {row.config_key for row in store.results.evaluations(delivered.job)}
    rows = [
        row
        for row in store.results.measurements(delivered.job, device=DEVICE)
        if row.purpose != Purpose.FINAL.value
    ]
    assert {row.config_key for row in rows} == evaluated
    assert len(rows) == len(evaluated) >= 8 + 3
    study = optuna.load_study(
        study_name=f"{delivered.job}/{DEVICE}", storage=store.optuna_storage()
    )
    assert sorted(t.user_attrs["config"] for t in study.trials) == sorted(evaluated)
    # Every dimension is a parameter, so that Optuna's own tools can open the study.
    assert all(len(t.params) == len(t.distributions) > 20 for t in study.trials)
    assert {t.system_attrs["EvolutionSampler:generation"] for t in study.trials} >= {0, 1}


def test_front_is_non_dominated_and_stays_in_the_devices_space(workspace, delivered):
    job = workspace.store.jobs.job(delivered.job)
    results = device_results(workspace.store, job, DEVICE)
    for member in results.front:
        assert not any(
            other.accuracy >= member.accuracy
            and other.measured_ms <= member.measured_ms
            and (other.accuracy, other.measured_ms) != (member.accuracy, member.measured_ms)
            for other in results.verified
        )
        assert results.space.contains(member.config)
        assert member.config["resolution"] == 20
        assert member.costs == cost(results.space.layer_specs(member.config))


def test_predictions_were_made_without_the_config_s_own_measurement(workspace, delivered):
    job = workspace.store.jobs.job(delivered.job)
    verified = device_results(workspace.store, job, DEVICE).verified
    assert all(v.predicted_ms is not None for v in verified)
    assert all((v.predicted_accuracy is None) == (v.generation == 0) for v in verified)
    # A fit that had seen the reference configs would be closer to them than the noise.
    errors = [abs(v.predicted_ms / v.measured_ms - 1) for v in verified if v.generation == 0]
    assert max(errors) > 0.01


def test_the_data_is_read_once_from_the_job_file_to_its_bundles(delivered, data_reads):
    assert delivered.devices[0].bundles
    assert data_reads == ["load", "digest"]


def test_precision_twins_are_one_architecture(workspace, delivered):
    job = workspace.store.jobs.job(delivered.job)
    results = device_results(workspace.store, job, DEVICE)
    twins = results.precision_twins()
    assert twins
    for floating, integer in twins:
        assert at_bits(results.space, floating.config, 8) == integer.config
        assert floating.costs.macs == integer.costs.macs
        assert floating.costs.bytes > 2 * integer.costs.bytes


def test_the_same_command_again_does_nothing_more(workspace, delivered, tiny_job):
    before = _rows(workspace, delivered.job)
    assert _run(workspace, tiny_job).job == delivered.job
    assert _rows(workspace, delivered.job) == before


def _rows(workspace, job):
    results = workspace.store.results
    return (
        [row.id for row in results.evaluations(job)],
        [row.id for row in results.measurements(job)],
        [(row.path, row.manifest_sha256) for row in results.bundles(job)],
    )


def test_bundles_report_the_binarys_accuracy(workspace, delivered):
    bundles = delivered.devices[0].bundles
    assert 1 <= len(bundles) <= 2
    for folder in bundles:
        manifest = json.loads((folder / "manifest.json").read_text())
        member = next(
            m for m in front(workspace.store, delivered.job, DEVICE) if m.key == folder.name
        )
        assert manifest["accuracy"] == pytest.approx(member.report_accuracy / 100)
        assert manifest["latency"]["measured"]["median_ms"] == member.measured_ms
        assert manifest["config"] == member.config


def test_report_says_what_was_found(workspace, delivered, tmp_path):
    path = write_report(workspace.store, delivered.job, tmp_path)
    text = path.read_text()
    for member in front(workspace.store, delivered.job, DEVICE):
        assert member.key in text
        assert f"{member.measured_ms:.4f}" in text
    for seed in ("search 0", "supernet 0", "split 0"):
        assert seed in text
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["devices"][0]["latency_predictor"]["count"] >= 3
    assert set(data["seconds"]) >= {"train", "reference", "search", "verify", "final measurement"}
    assert job_report(workspace.store, delivered.job).state == "done"


def test_any_verified_subnet_can_be_exported(workspace, delivered, tmp_path):
    job = workspace.store.jobs.job(delivered.job)
    results = device_results(workspace.store, job, DEVICE)
    fronts = {v.config.key for v in results.front}
    other = next(v for v in results.verified if v.config.key not in fronts)
    arguments = (workspace.store, workspace.artifacts, delivered.job, tmp_path)
    paths = export_front(*arguments, home=workspace.home, device=DEVICE, keys=[other.config.key])
    assert [p.name for p in paths] == [other.config.key]
    with pytest.raises(UnknownNameError, match="verified config"):
        export_front(*arguments, home=workspace.home, keys=["0" * 16])
    with pytest.raises(UnknownNameError, match=DEVICE):
        export_front(*arguments, home=workspace.home, device="gpu")


def test_when_nothing_is_feasible_the_closest_are_kept(workspace, delivered, tiny_job):
    weights = next(workspace.home.glob("supernets/*/supernet/supernet.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-9])  # the stored copy of the supernet must serve
    impossible = {"name": "latency", "max": 1e-6, "unit": "ms"}
    found = _run(workspace, tiny_job, constraints=[impossible])
    members = found.devices[0].front
    assert members
    assert not any(member.feasible for member in members)
    text = found.report.read_text()
    assert "No verified subnet meets latency <= 1e-06 ms: these are the closest" in text
    assert found.devices[0].bundles
    fastest = min(
        v.measured_ms
        for v in device_results(
            workspace.store, workspace.store.jobs.job(found.job), DEVICE
        ).verified
    )
    assert members[0].measured_ms == fastest


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"constraints": [{"name": "size", "max": 0.1, "unit": "kB"}]},
            SpaceError,
            r"no subnet .* size <= 0.1 kB: the smallest one has 1\d",
        ),
        (
            {"constraints": [{"name": "size", "min": 50, "unit": "MB"}]},
            SpaceError,
            r"no subnet .* 50 <= size MB: the largest one has 0\.",
        ),
        ({"supernet": {"batch_size": 2000}}, NetcarveError, "exceeds the 1079 training images"),
        (
            {"finetune": {"epochs": 1, "batch_size": 2000}},
            NetcarveError,
            "finetune.batch_size 2000 exceeds the 1079",
        ),
        ({"devices": ["nobody"]}, UnknownNameError, "unknown device 'nobody'"),
        ({"space": "resnet"}, UnknownNameError, "mobilenetv3_digits"),
        ({"choices": {"resolution": [21]}}, SpaceError, "allowed: 20, 24, 28, 32"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(workspace, tiny_job, change, error, message):
    before = [job.id for job in workspace.store.jobs.jobs()]
    with pytest.raises(error, match=message):
        run_job(
            parse_job(tiny_job | {"name": "bad"} | change),
            workspace.store,
            workspace.artifacts,
            workspace.home,
            silent,
        )
    assert [job.id for job in workspace.store.jobs.jobs()] == before


def _own_data(folder: Path, labels) -> dict:
    images = np.zeros((len(labels), 8, 8), np.float32)
    np.savez(folder / "own.npz", images=images, labels=labels)
    return {"data": {"name": "npz", "path": str(folder / "own.npz")}}


def test_unusable_data_is_refused(workspace, tiny_job, tmp_path):
    one_class = _own_data(tmp_path, np.zeros(50, np.int64))
    with pytest.raises(NetcarveError, match="class"):
        _run(workspace, tiny_job, name="bad", **one_class)
    three = _own_data(tmp_path, np.arange(600) % 3)
    with pytest.raises(NetcarveError, match=r"\(1, 3\); space mobilenetv3_digits has \(1, 10\)"):
        _run(workspace, tiny_job, name="bad", **three)


def test_changed_data_is_not_mixed_with_the_old(workspace, tiny_job, tmp_path):
    def write(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        path = tmp_path / "own.npz"
        images = rng.random((600, 8, 8), dtype=np.float32)
        np.savez(path, images=images, labels=np.arange(600) % 10)
        return {"data": {"name": "npz", "path": str(path)}}

    settings = parse_job(tiny_job | {"name": "own"} | write(0))
    job, _ = workspace.store.jobs.record_job(
        "own", _resolve(settings, workspace.store), settings.search_space().key, 0
    )
    write(1)
    with pytest.raises(SearchError, match=r"own\.npz\) has changed"):
        resume_job(job.id, workspace.store, workspace.artifacts, workspace.home, silent)


def test_when_everything_fails_the_job_fails_and_can_be_resumed(workspace, tiny_job):
    settings = parse_job(tiny_job | {"name": "broken", "seed": 1})
    job, _ = workspace.store.jobs.record_job(
        "broken", _resolve(settings, workspace.store), settings.search_space().key, 1
    )
    # A file where the folder of the builds should be: none can be written.
    obstacle = workspace.home / "jobs" / job.id / "builds"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    places = (workspace.store, workspace.artifacts, workspace.home, silent)
    with pytest.raises(SearchError, match=rf"every build for {DEVICE} failed \(8\)"):
        resume_job(job.id, *places)
    assert workspace.store.jobs.state(job.id).value == "failed"
    assert "NotADirectoryError" in job_report(workspace.store, job.id).to_markdown()
    assert not device_results(workspace.store, job, DEVICE).verified
    obstacle.unlink()
    resume_job(job.id, *places)
    assert workspace.store.jobs.state(job.id).value == "done"
    assert device_results(workspace.store, job, DEVICE).front
