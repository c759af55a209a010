from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from supernet.config import SupernetConfig
from supernet.data import DataConfig, load_data
from supernet.errors import DataError


def test_the_path_goes_with_npz_and_is_kept_absolute(tmp_path, monkeypatch):
    with pytest.raises(ValidationError, match="'npz' needs a path"):
        DataConfig(name="npz")
    with pytest.raises(ValidationError, match=r"'digits' has no path.*own\.npz.*name: npz"):
        DataConfig(path="own.npz")
    images = np.zeros((20, 8, 8), np.float32)
    np.savez(tmp_path / "own.npz", images=images, labels=np.repeat([0, 1], 10))
    monkeypatch.chdir(tmp_path)
    config = DataConfig(name="npz", path="own.npz")
    monkeypatch.chdir("/")
    assert config.path == tmp_path / "own.npz"
    assert load_data(config).classes == 2
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("model", [DataConfig, SupernetConfig])
def test_seeds_fit_every_generator(model):
    assert model(seed=2**31 - 1).seed == 2**31 - 1
    for seed in (-1, 2**31, 10**30):
        with pytest.raises(ValidationError, match="seed"):
            model(seed=seed)


def test_unknown_keys_names_and_splits_are_refused(digits):
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"nam": "digits"})
    with pytest.raises(ValidationError):
        DataConfig(name="imagenet")
    with pytest.raises(DataError, match="train, selection, report"):
        digits.split("test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "image_folder", "path": "x"}, r"image_folder.*size: Field required"),
        (
            {"name": "image_folder", "path": "x", "settings": {"sise": 8}},
            r"unknown key 'sise'. Did you mean 'size'\?",
        ),
        ({"name": "image_folder", "settings": {"size": 8}}, "needs a path to a folder with"),
        ({"name": "image_folder", "path": "x", "settings": {"size": 8, "channels": 2}}, "channels"),
        ({"name": "digits", "settings": {"size": 8}}, "unknown key 'size'"),
        ({"name": "folder"}, "unknown data set 'folder'.*Known: digits, huggingface"),
        ({"mean": [0.5]}, "'mean' and 'std' belong together"),
        ({"mean": [0.5], "std": [0.0]}, "greater than 0"),
        ({"name": "huggingface", "settings": {"size": 8}}, "either a path .* or settings.dataset"),
        (
            {"name": "huggingface", "path": "x", "settings": {"size": 8, "dataset": "a/b"}},
            "either a path .* or settings.dataset",
        ),
        # A format's name, and one that leaves the hub.
        ({"name": "huggingface", "settings": {"size": 8, "dataset": "pandas"}}, "dataset"),
        ({"name": "huggingface", "settings": {"size": 8, "dataset": "../b"}}, "dataset"),
    ],
)
def test_settings_are_those_of_the_kind(given, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(given)


def test_settings_survive_json_and_only_what_decides_is_in_the_identity(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(name.encode())

    def config(**settings):
        return DataConfig(name="image_folder", path=tmp_path, settings={"size": 8, **settings})

    assert DataConfig.model_validate_json(config().model_dump_json()) == config()
    assert config().settings.channels == 3
    assert config(cache_mb=0, decode_threads=4).identity() == config().identity()
    assert config(channels=1).identity() != config().identity()
