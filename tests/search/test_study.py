"""A device's study within a job: what is predicted, entered, and when it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sqlalchemy import text, update

from search.artifacts import ArtifactStore
from search.errors import LeaseLostError, NewerDatabaseError, StoreError
from search.job import parse_job
from search.loop import _Loop, resume_job, run_job
from search.models import JobRow, JobState, Purpose
from search.progress import silent
from search.results import LARGEST_LOSS
from search.store import Store
from search.stored_job import device_results
from search.study import DeviceStudy
from search.surrogate import fit_surrogate
from tests.search.stand_in import make_stand

LOSS = [{"name": "loss", "unit": "nats"}, {"name": "latency", "unit": "ms"}]


@pytest.fixture
def stand(tmp_path, tiny_job):
    stand = make_stand(tmp_path, tiny_job, "a", "b", objectives=LOSS)
    yield stand
    stand.store.close()


def study(stand, device):
    return DeviceStudy(stand.session, device, stand.space)


def verify(stand, device, configs):
    extra = {config.key: {"generation": 0} for config in configs}
    stand.verifier.evaluate(configs, "test")
    stand.verifier.measure(device, configs, Purpose.REFERENCE, "test", extra)


def verified(stand, device):
    return device_results(stand.store, stand.job, device).verified


def test_an_accuracy_learnt_from_another_device_is_not_predicted(stand):
    configs = stand.configs(22)
    verify(stand, "a", configs[:10])
    verify(stand, "b", configs[10:20])
    proposal = study(stand, "b").proposal(1, lambda: [configs[0], configs[20]])
    latency = {"predicted_ms", "predicted_ms_std"}
    accuracy = {"predicted_accuracy", "predicted_accuracy_std"}
    assert set(proposal.predicted[configs[0].key]) == latency
    assert set(proposal.predicted[configs[20].key]) == latency | accuracy


@pytest.mark.parametrize("worst", [math.nan, math.inf, 1e9])
def test_a_loss_that_is_not_finite_is_the_worst_not_a_crash(stand, worst):
    configs = stand.configs(12)
    stand.executor.losses = {configs[3].key: worst}
    one = study(stand, "a")
    references = one.proposal(0, lambda: configs)
    verify(stand, "a", configs)
    one.enter(references)
    values = {t.user_attrs["config"]: t.values[0] for t in one.study.get_trials()}
    assert values.pop(configs[3].key) == LARGEST_LOSS
    assert set(values.values()) == {1.0}

    found = verified(stand, "a")
    surrogate = fit_surrogate(stand.session.settings.search, stand.space, found, found, one.latency)
    mean, std = surrogate.predict(np.stack([c.indices for c in configs]))["loss"]
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert np.argmax(mean) == 3
    with np.errstate(invalid="raise"):
        assert len(one.proposal(1).configs) == stand.session.settings.search.batch


def test_who_lost_the_job_enters_no_trial(stand):
    """The heartbeat has not noticed yet: the process was stopped while it measured."""
    configs = stand.configs(3)

    def steal():
        with stand.store.writing() as session:
            session.execute(update(JobRow).values(lease_token="another"))

    stand.devices["a"].before = steal
    one = study(stand, "a")
    with stand.store.jobs.claim(stand.job.id) as lease, pytest.raises(LeaseLostError):
        _Loop(stand.session, lease)._generation(
            {"a": one}, 0, "reference", Purpose.REFERENCE, lambda _device: configs
        )
    assert one.study.get_trials() == []


@pytest.mark.parametrize("schema_version", [None, 99])
def test_studies_of_a_newer_optuna_are_found_before_anything_is_recorded(
    tmp_path, tiny_job, schema_version
):
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.optuna_storage()
        old, _ = store.jobs.record_job("old", {}, "space", 0)
        with store.writing() as session:
            session.execute(text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
            if schema_version is not None:
                session.execute(text("UPDATE version_info SET schema_version = 99"))
        places = (store, ArtifactStore(str(tmp_path / "artifacts")), tmp_path / "home", silent)
        with pytest.raises(NewerDatabaseError, match=r"'v99\.0\.0\.a'.*--db"):
            run_job(parse_job(tiny_job), *places)
        with pytest.raises(NewerDatabaseError):
            resume_job(old.id, *places)
        assert [job.id for job in store.jobs.jobs()] == [old.id]
        assert store.jobs.state(old.id) is JobState.QUEUED
        assert store.devices.devices() == []
    assert not (tmp_path / "home").exists()


def test_studies_of_an_older_optuna_say_how_to_upgrade_them(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.optuna_storage()
        with store.writing() as session:
            session.execute(text("UPDATE alembic_version SET version_num = 'v2.6.0.a'"))
        with pytest.raises(StoreError, match="optuna storage upgrade --storage 'sqlite:///"):
            store.optuna_storage()
