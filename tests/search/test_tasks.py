"""Which labels an accuracy comes from: the search reads one split, the bundles another."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from search import tasks
from search.export import binary_accuracy
from search.job import parse_job
from search.tasks import EvaluationTask, FinetuneTask, evaluate_subnet, finetune_subnet
from search.verification import SPLIT
from supernet import Augmentation, FinetuneConfig, build_supernet, load_data, save_supernet
from supernet.batches import Batches
from supernet.errors import DataError


@pytest.fixture(scope="module")
def settings(tiny_job):
    return parse_job(tiny_job)


@pytest.fixture(scope="module")
def data(settings):
    return load_data(settings.data)


def poisoned(data, split):
    """The data with every label of one split moved to the next class."""
    whole = data.split(split)
    return replace(data, **{split: replace(whole, labels=(whole.labels + 1) % data.classes)})


@pytest.fixture(scope="module")
def supernet(settings, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("supernet")
    save_supernet(build_supernet(settings.search_space()), folder)
    return folder


def test_a_subnet_is_evaluated_on_the_split_of_its_task(
    settings, data, supernet, tmp_path, monkeypatch
):
    def evaluated(labels, split=SPLIT):
        monkeypatch.setattr(tasks, "_data", lambda _config: labels)
        config = settings.search_space().min_config().to_json()
        folder = tmp_path / "subnet"
        found = evaluate_subnet(
            EvaluationTask(
                str(supernet), settings.data.model_dump_json(), config, str(folder), split
            )
        )
        return found.accuracy, found.loss, found.count

    clean = evaluated(data)
    assert clean[2] == len(data.selection)
    assert evaluated(poisoned(data, "report")) == clean
    assert evaluated(poisoned(data, "train")) == clean
    changed = evaluated(poisoned(data, "selection"))
    assert changed[0] != clean[0]
    assert changed[1] != clean[1]
    assert evaluated(poisoned(data, "selection"), "report") == evaluated(data, "report")
    with pytest.raises(DataError, match="unknown split 'test'"):
        evaluated(data, "test")


def test_a_bundle_s_accuracy_is_of_the_report_split(data):
    class Device:
        def run(self, build, images):
            # Any fixed function of the pixels that gives different classes.
            pixels = images.reshape(len(images), -1)
            return pixels @ np.random.default_rng(0).normal(size=(pixels.shape[1], 10))

    session = SimpleNamespace(verifier=SimpleNamespace(devices={"cpu": Device()}))
    build = SimpleNamespace(specs=(SimpleNamespace(in_size=20),))
    clean = binary_accuracy(session, "cpu", build, data)
    assert binary_accuracy(session, "cpu", build, poisoned(data, "selection")) == clean
    assert binary_accuracy(session, "cpu", build, poisoned(data, "report")) != clean


def test_a_fine_tuning_that_died_in_its_worker_goes_on_there(
    settings, data, supernet, tmp_path, monkeypatch
):
    monkeypatch.setattr(tasks, "_data", lambda _config: data)
    config = settings.search_space().min_config().to_json()

    def task(name):
        return FinetuneTask(
            supernet=str(supernet),
            data=settings.data.model_dump_json(),
            config=config,
            subnet=str(tmp_path / name / "subnet"),
            split=SPLIT,
            settings=FinetuneConfig(epochs=2, batch_size=512).model_dump_json(),
            augmentation=Augmentation().model_dump_json(),
            checkpoints=str(tmp_path / name / "checkpoints"),
        )

    whole = finetune_subnet(task("whole"))
    batch, steps = Batches.batch, []

    def killed(self, step):
        steps.append(step)
        if steps == [0, 1, 2]:
            raise KeyboardInterrupt
        return batch(self, step)

    monkeypatch.setattr(Batches, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune_subnet(task("killed"))
    assert not (tmp_path / "killed" / "subnet").exists()
    again = finetune_subnet(task("killed"))
    assert steps == [0, 1, 2, 2, 3]
    assert (again.accuracy, again.loss) == (whole.accuracy, whole.loss)
    for file in (tmp_path / "whole" / "subnet").iterdir():
        assert (tmp_path / "killed" / "subnet" / file.name).read_bytes() == file.read_bytes()
