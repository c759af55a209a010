from __future__ import annotations

import numpy as np
import pytest
import torch

from search.data_reader import DataReader
from search.job import parse_job
from search.loop import _resolve
from search.progress import silent
from search.session import JobSession
from search.workspace import open_workspace
from supernet import DataConfig
from supernet.data import Npz
from supernet.errors import DataError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The settings of data whose images are drawn from a seed, and what was loaded."""
    loaded = []
    load = Npz.load

    def noted(self):
        loaded.append(self.path.name)
        return load(self)

    monkeypatch.setattr(Npz, "load", noted)

    def write(seed, name="own"):
        images = np.random.default_rng(seed).random((600, 8, 8), dtype=np.float32)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(600) % 10)
        return {"name": "npz", "path": str(tmp_path / f"{name}.npz")}

    return write, loaded


def test_one_config_is_read_once_and_another_for_itself(own):
    write, loaded = own
    config = DataConfig.model_validate(write(0))
    reader = DataReader()
    first = reader.read(config, silent)
    assert first.identity == config.identity()
    write(1)
    assert reader.read(config.model_copy(), silent) is first
    assert loaded == ["own.npz"]
    other = reader.read(config.model_copy(update={"seed": 1}), silent)
    assert not torch.equal(other.splits.report.labels, first.splits.report.labels)
    assert other.identity["path"] != first.identity["path"]
    with pytest.raises(DataError, match="absent"):
        reader.read(DataConfig(name="npz", path="absent.npz"), silent)


def test_a_job_s_session_has_what_was_read_for_its_spec(own, tmp_path, runtime_dir, tiny_job):
    write, loaded = own
    settings, reader = parse_job(tiny_job | {"data": write(0)}), DataReader()
    with open_workspace(tmp_path) as places:
        spec = _resolve(settings, places.store, silent, reader)
        job, _ = places.store.jobs.record_job("own", spec, settings.search_space().key, 0)
        opened = (places.store, places.artifacts, job, places.home, silent)
        session = JobSession(*opened, reader)
        assert loaded == ["own.npz"]
        assert session.data is reader.read(settings.data, silent).splits
        # Another command reads for itself.
        assert JobSession(*opened).data is not session.data
        assert len(loaded) == 2
