"""Replays: the same trials again, however often the job is interrupted."""

from __future__ import annotations

import optuna
import pytest

from search import delivery
from search.errors import SearchError, VerificationError
from search.export import export_front
from search.job import parse_job
from search.loop import run_job
from search.progress import silent
from search.stored_job import job_devices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _trials(workspace, job_id):
    """Everything that a study holds of a job's trials, apart from numbers and times."""
    found = []
    for device in job_devices(workspace.store.jobs.job(job_id)):
        study = optuna.load_study(
            study_name=f"{job_id}/{device}", storage=workspace.store.optuna_storage()
        )
        found += [
            (device, t.number, t.state, t.params, t.values, t.user_attrs, t.system_attrs)
            for t in study.trials
        ]
    return found


def _replay(workspace, content, source, progress=silent):
    places = (workspace.store, workspace.artifacts, workspace.home)
    return run_job(parse_job(content), *places, progress, replay=source)


def _every_third_call():
    calls = 0

    def progress(_phase, _done, _total):
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt

    return progress


def test_trials_do_not_depend_on_when_a_job_was_interrupted(workspace, delivered, tiny_job):
    whole = _replay(workspace, tiny_job | {"name": "whole"}, delivered.job)
    assert _trials(workspace, whole) == _trials(workspace, delivered.job)
    progress, interrupts, broken = _every_third_call(), 0, None
    while broken is None:
        try:
            broken = _replay(workspace, tiny_job | {"name": "broken"}, delivered.job, progress)
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts > 5
    assert broken != whole
    assert _trials(workspace, broken) == _trials(workspace, delivered.job)
    of_replay, of_source = (
        {(r.config_key, r.purpose): r.measurement for r in workspace.store.results.measurements(j)}
        for j in (broken, delivered.job)
    )
    assert of_replay == of_source


def test_a_replay_leaves_a_report_and_no_bundles(workspace, delivered, tiny_job, tmp_path):
    settings = parse_job(tiny_job | {"name": "reported"})
    places = (workspace.store, workspace.artifacts, workspace.home)
    found = delivery.run(settings, *places, tmp_path, silent, replay=delivered.job)
    assert [one.bundles for one in found.devices] == [[]]
    assert [m.key for m in found.devices[0].front] == [m.key for m in delivered.devices[0].front]
    assert f"replayed from {delivered.job}" in found.report.read_text()
    with pytest.raises(SearchError, match=f"replays {delivered.job} and built nothing"):
        export_front(*places[:2], found.job, tmp_path, home=workspace.home)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"supernet": {"epochs": 2}}, SearchError, "its supernet_key differ"),
        ({"choices": {"resolution": [24]}}, SearchError, "its space, supernet_key, device_spaces"),
        ({"seed": 5}, VerificationError, "never verified config [0-9a-f]{16}, which this search"),
    ],
)
def test_only_what_was_verified_can_be_replayed(
    workspace, delivered, tiny_job, change, error, message
):
    with pytest.raises(error, match=message):
        _replay(workspace, tiny_job | {"name": "other"} | change, delivered.job)
