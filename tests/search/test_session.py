from __future__ import annotations

import shutil

import numpy as np
import pytest

import compilers.targets as targets
from compilers.errors import DeviceError
from compilers.host import processor_name
from compilers.targets import host_isas
from search.errors import SearchError
from search.job import parse_job
from search.loop import _resolve
from search.progress import silent
from search.session import JobSession
from search.workspace import open_workspace
from spaces.inline import parse_inline_space
from supernet import build_supernet, save_supernet

HOST = processor_name()


@pytest.fixture
def open_session(tmp_path, runtime_dir, tiny_job):
    """Open a session of a stored job whose only device, `native`, was probed elsewhere."""
    with open_workspace(tmp_path) as places:

        def make(**probed: str) -> JobSession:
            settings = parse_job(tiny_job | {"devices": [{"name": "cpu"}]})
            spec = _resolve(settings, places.store)
            spec["capabilities"]["cpu"] |= probed
            job, _ = places.store.jobs.record_job("tiny", spec, settings.search_space().key, 0)
            return JobSession(places.store, places.artifacts, job, places.home, silent)

        yield make


def test_a_job_is_not_continued_on_another_processor(open_session):
    with pytest.raises(DeviceError) as caught, open_session(hardware="Other CPU 9000"):
        pass
    assert "Other CPU 9000" in str(caught.value)
    assert HOST in str(caught.value)


def test_a_job_is_not_continued_without_its_instruction_set(open_session, monkeypatch):
    session = open_session(isa="avx512_vnni", hardware="Other CPU 9000")
    monkeypatch.setattr(targets, "host_cpu_flags", lambda: targets.ISAS["avx2"].cpu_flags)
    with pytest.raises(DeviceError, match="Other CPU 9000 with avx512_vnni") as caught, session:
        pass
    assert HOST in str(caught.value)


def test_builds_are_for_the_instruction_set_that_was_probed(open_session):
    probed = host_isas()[-1]
    with open_session(isa=probed) as session:
        # Ray workers make their device from this, each on its own host.
        assert session.verifier.devices["cpu"].config.isa == probed
    assert session.job.spec["device_configs"]["cpu"]["isa"] == "native"


def test_a_teacher_must_stay_the_same_until_the_supernet_is_trained(
    tmp_path, runtime_dir, tiny_job, small_space
):
    def save_teacher():
        save_supernet(build_supernet(parse_inline_space(small_space).space()), tmp_path / "teacher")

    learn = {"objective": "external_teacher", "teacher": str(tmp_path / "teacher")}
    settings = parse_job(tiny_job | {"supernet": tiny_job["supernet"] | learn})
    save_teacher()
    with open_workspace(tmp_path) as places:
        spec = _resolve(settings, places.store)
        job, _ = places.store.jobs.record_job("tiny", spec, settings.search_space().key, 0)

        def session() -> JobSession:
            return JobSession(places.store, places.artifacts, job, places.home, silent)

        identity = session().data_identity
        save_teacher()
        with pytest.raises(SearchError, match=r"or its teacher \(.*teacher\) has changed since"):
            session()
        places.store.results.record_supernet(
            spec["supernet_key"], "sha256:" + "0" * 64, {"data_identity": identity}
        )
        shutil.rmtree(tmp_path / "teacher")
        assert session().supernet_folder.name == spec["supernet_key"]


def test_a_job_follows_its_data_and_its_teacher_and_nothing_else(
    tmp_path, runtime_dir, tiny_job, small_space
):
    def write(path, seed):
        rng = np.random.default_rng(seed)
        images = rng.random((600, 8, 8), dtype=np.float32)
        np.savez(path, images=images, labels=np.arange(600) % 10)

    def settings(data, teacher):
        learn = {"objective": "external_teacher", "teacher": str(teacher)}
        own = {"data": {"name": "npz", "path": str(data)}}
        return parse_job(tiny_job | {"supernet": tiny_job["supernet"] | learn} | own)

    write(tmp_path / "own.npz", 0)
    save_supernet(build_supernet(parse_inline_space(small_space).space()), tmp_path / "teacher")
    with open_workspace(tmp_path) as places:
        jobs = places.store.jobs

        def record(data, teacher):
            request = settings(data, teacher)
            key = request.search_space().key
            job, _ = jobs.record_job("own", _resolve(request, places.store), key, 0)
            return job

        first = record(tmp_path / "own.npz", tmp_path / "teacher")
        (tmp_path / "new").mkdir()
        data = (tmp_path / "own.npz").rename(tmp_path / "new" / "moved.npz")
        teacher = (tmp_path / "teacher").rename(tmp_path / "new" / "teacher")
        moved = record(data, teacher)
        assert moved.id == first.id
        # What asks for the job by its id knows the new place.
        stored = jobs.job(first.id)
        assert stored.settings["data"]["path"] == str(data)
        session = JobSession(places.store, places.artifacts, stored, places.home, silent)
        assert session.settings.data.path == data
        assert session.settings.supernet.teacher == teacher
        write(data, 1)
        changed = record(data, teacher)
        assert changed.id != first.id
        assert changed.spec["supernet_key"] != first.spec["supernet_key"]
        # The old job does not take the changed data for its own.
        with pytest.raises(SearchError, match=r"moved\.npz\) or its teacher .* has changed since"):
            JobSession(places.store, places.artifacts, stored, places.home, silent)
