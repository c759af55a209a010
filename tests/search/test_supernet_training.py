"""A supernet trained without a job, and found by it and by the commands that look at it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from search.errors import SearchError
from search.job import parse_job
from search.progress import silent
from search.supernet_eval import evaluate_supernet
from search.supernet_training import train
from search.supernet_view import list_supernets, show_supernet, supernet_of
from search.workspace import open_workspace
from spaces import NetcarveError, UnknownNameError
from supernet.errors import DataError

TRAINING = {"warmup_epochs": 1, "epochs": 1, "batch_size": 300, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def settings(small_space):
    """Settings of a job with some keys replaced."""

    def make(**change):
        job = {
            "name": "own",
            "space": small_space,
            "supernet": TRAINING,
            # No such device is asked.
            "devices": ["nobody"],
            "objectives": [{"name": "accuracy", "unit": "%"}],
        }
        return parse_job(job | change)

    return make


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The digits as a user's own file."""
    from sklearn.datasets import load_digits

    path = tmp_path_factory.mktemp("data") / "own.npz"
    digits = load_digits()
    np.savez(path, images=(digits.images / 16).astype(np.float32), labels=digits.target)
    return {"name": "npz", "path": str(path)}


@pytest.fixture(scope="module")
def work(tmp_path_factory, runtime_dir):
    with open_workspace(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(work, data, settings):
    return train(settings(data=data), work.store, work.artifacts, work.home, silent)


def test_it_has_the_key_that_a_job_looks_for(work, data, trained, settings):
    job = settings(data=data)
    assert trained.key == job.supernet.key(job.search_space().key, job.data.identity())
    assert trained.state == "trained"
    assert trained.family == "mobilenetv3"
    assert trained.train_images == 1079
    assert trained.data["path"] == data["path"]
    assert trained.options["epochs"] == 1
    assert not trained.jobs
    said = []
    train(job, work.store, work.artifacts, work.home, lambda *a: said.append(a))
    assert not said, "it is not trained twice"


def test_it_is_found_by_its_key_and_by_its_jobs(work, trained):
    spec = {"supernet_key": trained.key}
    job, _ = work.store.jobs.record_job("user", spec, "key", 0)
    assert show_supernet(work.store, work.home, job.id).key == trained.key
    assert show_supernet(work.store, work.home, trained.key).jobs == [job.id]
    assert supernet_of(work.store, job.id).key == supernet_of(work.store, trained.key).key
    with pytest.raises(UnknownNameError, match=trained.key):
        show_supernet(work.store, work.home, "0" * 16)
    with pytest.raises(UnknownNameError, match=trained.key):
        supernet_of(work.store, "0" * 16)


def test_an_interrupted_training_is_listed_and_goes_on(work, data, trained, settings):
    job = settings(data=data, supernet=TRAINING | {"seed": 1})

    def interrupt(phase, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, work.store, work.artifacts, work.home, interrupt)
    views = list_supernets(work.store, work.home)
    assert [view.state for view in views] == ["trained", "unfinished"]
    assert views[1].step in (2, 3)
    assert views[1].family == "mobilenetv3"
    assert (views[1].options["seed"], views[1].data["path"]) == (1, data["path"])
    with pytest.raises(UnknownNameError):
        supernet_of(work.store, views[1].key)
    done = []
    train(job, work.store, work.artifacts, work.home, lambda *a: done.append(a[:2]))
    assert ("train: warm-up", 1) not in done, "it does not start again"
    assert [view.state for view in list_supernets(work.store, work.home)] == ["trained"] * 2
    assert not list(work.home.glob("supernets/*.json")), "the database knows it now"


def test_its_subnets_are_evaluated_without_a_job(work, data, trained):
    arguments = (trained.key, 1, 0, work.store, work.artifacts, work.home, silent)
    found = evaluate_supernet(*arguments)
    assert found.images == 359
    assert [one.subnet for one in found.subnets] == ["smallest"] * 2 + ["largest"] * 2 + [
        "random 1"
    ] * 2
    # The statistics that are stored are the largest subnet's, in float32.
    largest = found.subnets[3]
    assert (largest.subnet, largest.bits) == ("largest", 32)
    assert largest.accuracy == pytest.approx(largest.stale_accuracy, abs=0.3)
    # Another host has the artifacts alone.
    shutil.rmtree(trained.folder)
    assert evaluate_supernet(*arguments) == found


def test_changed_data_is_refused(work, data, trained):
    with np.load(data["path"]) as file:
        images, labels = file["images"], file["labels"]
    try:
        np.savez(data["path"], images=1 - images, labels=labels)
        with pytest.raises(SearchError, match=r"own\.npz\) has changed since its training"):
            evaluate_supernet(trained.key, 1, 0, work.store, work.artifacts, work.home, silent)
    finally:
        np.savez(data["path"], images=images, labels=labels)


def test_moved_data_is_found_again(work, data, trained, settings, tmp_path):
    arguments = (trained.key, 0, 0, work.store, work.artifacts, work.home, silent)
    before = evaluate_supernet(*arguments)
    path = Path(shutil.move(data["path"], tmp_path / "moved.npz"))
    try:
        with pytest.raises(DataError, match=r"own\.npz"):
            evaluate_supernet(*arguments)
        job, said = settings(data=data | {"path": str(path)}), []
        again = train(job, work.store, work.artifacts, work.home, lambda *a: said.append(a))
        assert (again.key, said) == (trained.key, []), "it is not trained again"
        assert again.data["path"] == str(path)
        assert evaluate_supernet(*arguments) == before
    finally:
        shutil.move(path, data["path"])
        train(settings(data=data), work.store, work.artifacts, work.home, silent)


def test_mistakes_are_found_before_anything_is_trained(work, settings, tmp_path):
    before = list_supernets(work.store, work.home)
    for change, message in (
        ({"supernet": {"batch_size": 2000}}, "exceeds the 1079 training images"),
        ({"supernet": {"family": "resnet"}}, "supernet.family is 'resnet', but space mobilenetv3"),
        ({"data": {"name": "npz", "path": str(tmp_path / "absent.npz")}}, r"absent\.npz"),
    ):
        with pytest.raises(NetcarveError, match=message):
            train(
                settings(**({"data": {"name": "digits"}} | change)),
                work.store,
                work.artifacts,
                work.home,
                silent,
            )
    assert list_supernets(work.store, work.home) == before
