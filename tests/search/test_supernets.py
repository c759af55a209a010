"""The supernet of a job: trained once, interrupted in good order, found again."""

from __future__ import annotations

import signal

import pytest

from search.job import parse_job
from search.loop import _resolve
from search.session import JobSession
from search.supernets import ensure_supernet
from search.workspace import open_workspace
from supernet.store import SUPERNET_FOLDER, load_supernet


class Reports(list):
    """The progress of a session; Ctrl-C arrives with the report of `interrupted_at`."""

    interrupted_at: tuple[str, int] | None = None

    def __call__(self, phase, done, total):
        self.append((phase, done, total))
        if (phase, done) == self.interrupted_at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def places(tmp_path, runtime_dir):
    with open_workspace(tmp_path) as places:
        yield places


@pytest.fixture
def open_session(places, tiny_job):
    def make(reports, **training):
        data = tiny_job["data"] | {"selection_share": 0.45, "report_share": 0.45}
        supernet = tiny_job["supernet"] | {"batch_size": 30} | training
        settings = parse_job(tiny_job | {"supernet": supernet, "data": data})
        spec = _resolve(settings, places.store)
        job, _ = places.store.jobs.record_job("tiny", spec, settings.search_space().key, 0)
        return JobSession(places.store, places.artifacts, job, places.home, reports)

    return make


def test_ctrl_c_at_the_last_step_keeps_the_supernet_and_ends_the_command(open_session):
    reports = Reports()
    session = open_session(reports, batch_size=90, checkpoint_every=1000)
    steps = len(session.data.train) // 90
    reports.interrupted_at = ("train: sandwich", steps)
    with pytest.raises(KeyboardInterrupt):
        ensure_supernet(session)
    assert reports[-1] == ("train: sandwich", steps, steps)
    assert session.store.results.supernet(session.supernet_folder.name) is not None


def test_an_interrupted_training_leaves_a_checkpoint_and_goes_on(open_session):
    reports = Reports()
    session = open_session(reports, checkpoint_every=1000)
    reports.interrupted_at = ("train: warm-up", 3)
    with pytest.raises(KeyboardInterrupt):
        ensure_supernet(session)
    assert [phase[1] for phase in reports] == [1, 2, 3]
    assert [path.name for path in session.supernet_folder.iterdir()] == ["step-00000003"]
    reports.clear()
    reports.interrupted_at = None
    ensure_supernet(session)
    assert reports[0][:2] == ("train: warm-up", 4)
    load_supernet(session.supernet_folder)
    reports.clear()
    ensure_supernet(session)
    assert reports == [], "trained once"
    left = [path.name for path in session.supernet_folder.iterdir()]
    assert left == [SUPERNET_FOLDER], "no checkpoint is kept"
