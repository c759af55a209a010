"""Every example is a job that can be started, but for its devices and data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from search.job import load_job
from supernet import DataConfig, load_data
from supernet.conflicts import check_choices
from supernet.trainer import check_training

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_a_valid_job_with_a_space_of_its_family(path):
    job = load_job(path)
    assert job.name == path.stem
    space = job.search_space()
    assert job.supernet.family in (None, space.family.name)
    assert space.log10_size > 3
    check_choices(space, job.supernet)


@pytest.fixture(scope="module")
def script():
    path = EXAMPLES / "make_digits_folder.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    found = tmp_path_factory.mktemp("examples") / "digits-folder"
    assert script.write(found) == 1797
    return found


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "digits-vit", "imagefolder-resnet"])
def test_an_example_on_digits_fits_its_data(name, folder, monkeypatch):
    # The folder that a job names is one beside which its command is run.
    monkeypatch.chdir(folder.parent)
    job = load_job(EXAMPLES / f"{name}.yaml")
    check_training(job.search_space(), job.supernet, load_data(job.data))


def test_the_script_writes_the_digits_as_a_folder_that_is_read(script, folder):
    digits = load_digits()
    for file in folder.glob("*/*"):
        number = int(file.stem)
        assert file.parent.name == script.NAMES[digits.target[number]]
        assert np.abs(np.array(Image.open(file)) / 255 - digits.images[number] / 16).max() < 1 / 255
    settings = {"size": 8, "channels": 1}
    data = load_data(DataConfig(name="image_folder", path=folder, settings=settings))
    assert data.names == tuple(sorted(script.NAMES))
    sizes = [len(data.split(name)) for name in ("train", "selection", "report")]
    assert sum(sizes) == 1797
