"""Fine-tuning after a search, around workers and devices that answer at once; the real training
is in tests/supernet/test_finetune.py."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from search.errors import LeaseLostError, VerificationError
from search.finetuned import finetuned, record_finetuned
from search.finetuning import Finetuner
from search.loop import _Loop
from search.models import Purpose
from search.report_tables import finetuned_section
from search.stored_job import device_results
from search.tasks import EvaluationTask, FinetuneTask
from tests.search.stand_in import make_stand


@pytest.fixture
def stand(tmp_path, tiny_job):
    # Accuracy and latency of a stand-in grow together: every config would be on the front.
    objectives = [{"name": "accuracy", "unit": "%"}, {"name": "size", "unit": "kB"}]
    stand = make_stand(
        tmp_path, tiny_job, "cpu", "gpu", finetune={"epochs": 3}, objectives=objectives
    )
    configs = stand.configs(6)
    extra = {config.key: {"generation": 1} for config in configs}
    stand.verifier.evaluate(configs, "test")
    for name in stand.devices:
        stand.verifier.measure(name, configs, Purpose.VERIFY, "test", extra)
    stand.executor.done.clear()
    yield stand
    stand.store.close()


def run(stand):
    with stand.store.jobs.claim(stand.job.id) as lease:
        _Loop(stand.session, lease)._finetune(list(stand.devices))


def results(stand, device="cpu"):
    return device_results(stand.store, stand.job, device)


def tasks(stand, kind):
    return [task for task in stand.executor.done if isinstance(task, kind)]


def test_each_member_of_a_front_is_fine_tuned_once_and_measured_on_every_device(stand):
    before = {name: [v.config.key for v in results(stand, name).front] for name in stand.devices}
    assert all(1 < len(keys) < 6 for keys in before.values())
    wanted = set().union(*before.values())
    run(stand)
    done = tasks(stand, EvaluationTask)
    assert all(isinstance(task, FinetuneTask) for task in done)
    assert len(done) == len(wanted)
    assert json.loads(done[0].settings)["epochs"] == 3
    assert set(finetuned(stand.store, stand.job.id)) == wanted
    for name, keys in before.items():
        rows = stand.store.results.measurements(
            stand.job.id, device=name, purpose=Purpose.FINETUNED
        )
        assert sorted(row.config_key for row in rows) == sorted(keys)
        # What the search has found is still what makes the front.
        assert [v.config.key for v in results(stand, name).front] == keys
    assert len(stand.store.results.evaluations(stand.job.id)) == 6


def test_both_accuracies_are_known_and_the_fine_tuned_subnet_is_deployed(stand):
    run(stand)
    found = results(stand)
    for member, verified in zip(found.members(), found.front, strict=True):
        assert member.finetuned_accuracy == pytest.approx(member.accuracy + 1)
        assert member.finetuned_ms is not None
        tuned = found.deployed(verified)
        assert tuned.purpose is Purpose.FINETUNED
        assert tuned.config == verified.config
        assert tuned.measurement_id["purpose"] == "finetuned"
    others = [v for v in found.verified if v not in found.front]
    assert all(found.deployed(v) is v for v in others)
    text = "\n".join(finetuned_section(found.members(), stand.job.spec["settings"]))
    assert "alone for 3 epochs" in text
    for member in found.members():
        assert f"| {member.accuracy:.2f} | {member.finetuned_accuracy:.2f} |" in text


def test_one_that_became_worse_is_deployed_as_it_was_found(stand):
    run(stand)
    first = results(stand).front[0]
    worse = {"accuracy": first.accuracy - 0.01, "loss": 1.0, "seconds": 1.0}
    artifact = finetuned(stand.store, stand.job.id)[first.config.key].artifact
    record_finetuned(stand.store, stand.job.id, first.config.key, **worse, artifact=artifact)
    found = results(stand)
    assert found.members()[0].finetuned_accuracy == pytest.approx(100 * first.accuracy - 1)
    assert found.deployed(found.front[0]) is found.front[0]
    assert all(found.deployed(v).purpose is Purpose.FINETUNED for v in found.front[1:])


def test_subnets_and_builds_lie_beside_those_of_the_search(stand):
    (config, *_) = [v.config for v in results(stand).front]
    run(stand)
    tuner = Finetuner.beside(stand.verifier)
    assert tuner.subnet_folder(config) != stand.verifier.subnet_folder(config)
    assert tuner.subnet_folder(config).exists()
    assert stand.verifier.subnet_folder(config).exists()
    built = {task.subnet for task in tasks(stand, object) if not isinstance(task, EvaluationTask)}
    assert str(tuner.subnet_folder(config)) in built
    # On another host the extracted subnet comes from the artifacts.
    shutil.rmtree(tuner.folder)
    assert set(tuner.build("cpu", [config], "test")) == {config.key}
    assert tuner.subnet_folder(config).exists()


def test_what_is_done_is_not_repeated(stand):
    stops = iter([False] * 2 + [True] * 99)

    def lose():
        if next(stops):
            raise LeaseLostError("lost")

    first = Finetuner.beside(replace(stand.verifier, check=lose))
    configs = stand.configs(6)
    with pytest.raises(LeaseLostError):
        first.evaluate(configs, "test")
    kept = finetuned(stand.store, stand.job.id)
    assert len(kept) == 2
    stand.executor.done.clear()
    Finetuner.beside(stand.verifier).evaluate(configs, "test")
    assert len(stand.executor.done) == 4
    assert {k: v for k, v in finetuned(stand.store, stand.job.id).items() if k in kept} == kept


def test_checkpoints_stay_until_the_result_is_recorded(stand):
    first = Finetuner.beside(stand.verifier)
    configs = stand.configs(6)
    folders = [first.checkpoint_folder(config) for config in configs]
    for folder in folders:
        folder.mkdir(parents=True)
    stops = iter([False] * 2 + [True] * 99)

    def lose():
        if next(stops):
            raise LeaseLostError("lost")

    with pytest.raises(LeaseLostError):
        Finetuner.beside(replace(stand.verifier, check=lose)).evaluate(configs, "test")
    done = finetuned(stand.store, stand.job.id)
    assert [folder.exists() for folder in folders] == [c.key not in done for c in configs]
    # Of a process that was killed between the record and the removal.
    left = next(folder for folder in folders if not folder.exists())
    left.mkdir()
    stand.executor.done.clear()
    first.evaluate(configs, "test")
    assert {Path(task.checkpoints) for task in stand.executor.done} == set(folders) - {
        folder for folder in folders if folder.name in done
    }
    assert not folders[0].parent.exists()


def test_one_that_fails_costs_the_others_nothing_and_keeps_what_the_search_found(stand):
    keys = [v.config.key for v in results(stand).front]
    stand.executor.broken = {keys[0]}
    run(stand)
    found = results(stand)
    members = {m.key: m for m in found.members()}
    assert members[keys[0]].finetuned_accuracy is None
    assert found.deployed(found.front[0]) is found.front[0]
    assert all(members[key].finetuned_accuracy is not None for key in keys[1:])
    phases = {event.phase for event in stand.store.jobs.events(stand.job.id, "failure")}
    assert phases == {"fine-tune"}
    others = [config for config in stand.configs(30) if config.key not in keys][:3]
    stand.executor.broken = {config.key for config in others}
    with pytest.raises(VerificationError, match=r"every evaluation failed \(3\)"):
        Finetuner.beside(stand.verifier).evaluate(others, "test")
