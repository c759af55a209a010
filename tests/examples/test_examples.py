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

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_a_valid_job_with_a_space_of_its_family(path):
    job = load_job(path)
    assert job.name == path.stem
    space = job.search_space()
    assert job.supernet.family in (None, space.family.name)
    assert space.log10_size > 3


def test_the_script_writes_the_digits_as_a_folder_that_is_read(tmp_path):
    path = EXAMPLES / "make_digits_folder.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.write(tmp_path) == 1797
    digits = load_digits()
    for file in tmp_path.glob("*/*"):
        number = int(file.stem)
        assert file.parent.name == script.NAMES[digits.target[number]]
        assert np.abs(np.array(Image.open(file)) / 255 - digits.images[number] / 16).max() < 1 / 255
    settings = {"size": 8, "channels": 1}
    data = load_data(DataConfig(name="image_folder", path=tmp_path, settings=settings))
    assert data.names == tuple(sorted(script.NAMES))
    sizes = [len(data.split(name)) for name in ("train", "selection", "report")]
    assert sum(sizes) == 1797
