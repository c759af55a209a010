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
from search.tasks import EvaluationTask, evaluate_subnet
from search.verification import SPLIT
from supernet import build_supernet, load_data, save_supernet
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
