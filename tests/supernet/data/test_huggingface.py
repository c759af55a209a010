"""The real library on small data that the tests write; nothing is downloaded."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch

from supernet.data import DataConfig, load_data
from supernet.errors import DataError


@pytest.fixture(scope="module")
def library():
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def table(library):
    """A `datasets.Dataset` of `count` pictures in two classes."""

    def make(count, seed=0, names=("ant", "bee")):
        features = library.Features(
            {"image": library.Image(), "label": library.ClassLabel(names=list(names))}
        )
        rows = {"image": list(pictures(count, seed)), "label": [i % 2 for i in range(count)]}
        return library.Dataset.from_dict(rows, features)

    return make


def saved(path, **settings):
    return DataConfig(name="huggingface", path=path, settings={"size": 8, **settings})


def test_a_saved_data_set(table, tmp_path):
    table(20).save_to_disk(str(tmp_path / "own"))
    data = load_data(saved(tmp_path / "own"))
    assert data.names == ("ant", "bee")
    assert [len(data.split(name)) for name in ("train", "selection", "report")] == [12, 4, 4]
    expected = {
        (torch.from_numpy(p).permute(2, 0, 1) / 255).contiguous().numpy().tobytes(): i % 2
        for i, p in enumerate(pictures(20))
    }
    for part in (data.train, data.selection, data.report):
        for image, label in zip(part.images[:], part.labels, strict=True):
            assert expected.pop(image.numpy().tobytes()) == label


def test_splits_of_a_saved_dictionary(library, table, tmp_path):
    parts = {"fit": table(20), "test": table(6, seed=1)}
    library.DatasetDict(parts).save_to_disk(str(tmp_path / "own"))
    data = load_data(saved(tmp_path / "own", split="fit", report_split="test"))
    first = torch.from_numpy(pictures(6, 1)[0]).permute(2, 0, 1) / 255
    assert torch.equal(data.report.images[:1][0], first)
    assert (len(data.train), len(data.report)) == (16, 6)
    with pytest.raises(DataError, match=r"has no split 'train'; it has: fit, test"):
        load_data(saved(tmp_path / "own"))


def test_columns_are_configurable_and_checked(library, table, tmp_path):
    own = table(20).rename_columns({"image": "picture", "label": "kind"})
    own = own.add_column("score", [0.5] * 20)
    own.save_to_disk(str(tmp_path / "own"))
    named = {"image_column": "picture", "label_column": "kind"}
    assert load_data(saved(tmp_path / "own", **named)).classes == 2
    for change, message in (
        ({"image_column": "image"}, r"no column 'image'; it has: picture, kind, score"),
        ({"image_column": "score"}, r"column 'score' .* holds .*; allowed: images"),
        ({"label_column": "score"}, r"column 'score' .* holds .*; allowed: classes or integers"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(saved(tmp_path / "own", **(named | change)))


def test_a_class_without_images_is_named(table, tmp_path):
    """Or the logits would have fewer classes than names."""
    table(20, names=("ant", "bee", "cow")).save_to_disk(str(tmp_path / "own"))
    with pytest.raises(DataError, match=r"class 2 \(cow\) has 0 images; at least 5"):
        load_data(saved(tmp_path / "own"))


def test_lists_of_labels_and_empty_splits_are_refused(library, table, tmp_path):
    several = table(20).remove_columns("label")
    for labels in ([[0, 1], [1]] * 10, [[0, 1], [1, 0]] * 10):
        several.add_column("label", labels).save_to_disk(str(tmp_path / "several"))
        with pytest.raises(DataError, match=r"column 'label' .* holds List.*; allowed: classes"):
            load_data(saved(tmp_path / "several"))
    parts = {"train": table(20), "test": table(20).select(range(0))}
    library.DatasetDict(parts).save_to_disk(str(tmp_path / "parts"))
    with pytest.raises(DataError, match=r"cannot load the data set .*parts"):
        load_data(saved(tmp_path / "parts", report_split="test"))


def test_files_that_a_data_set_names_are_not_read(library, table, tmp_path):
    """Whoever wrote the data set would choose what is read from this machine."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    content = {
        "image": [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 20,
        "label": [i % 2 for i in range(20)],
    }
    features = library.Features(
        {"image": library.Image(decode=False), "label": library.Value("int64")}
    )
    named = library.Dataset.from_dict(content, features).cast_column("image", library.Image())
    folder = tmp_path / "own"
    table(20).save_to_disk(str(folder))
    # Not by save_to_disk, which would embed it.
    import pyarrow as pa

    (arrow,) = folder.glob("*.arrow")
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, named.data.schema) as writer:
        writer.write_table(named.data.table)
    with pytest.raises(DataError, match=r"image 0 of split 'train' of .* is not in the data set"):
        load_data(saved(folder))


def test_a_name_loads_files_of_the_data_set_and_runs_no_code(table, tmp_path, monkeypatch):
    """A folder under that name stands in for the hub, as the library allows."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "someone" / "own"
    folder.mkdir(parents=True)
    table(20).to_parquet(str(folder / "train.parquet"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    config = DataConfig(name="huggingface", settings={"size": 8, "dataset": "someone/own"})
    assert load_data(config).classes == 2
    table(20).select(range(0)).to_parquet(str(folder / "test.parquet"))
    reported = {"size": 8, "dataset": "someone/own", "report_split": "test"}
    with pytest.raises(DataError, match=r"cannot load the data set someone/own: .* no data"):
        load_data(DataConfig(name="huggingface", settings=reported))
    (folder / "test.parquet").unlink()
    (folder / "train.parquet").unlink()
    (folder / "own.py").write_text("raise SystemExit('the code of the data set ran')")
    with pytest.raises(DataError, match="cannot load the data set someone/own"):
        load_data(config)


def test_the_content_decides_the_identity(table, tmp_path):
    table(20).save_to_disk(str(tmp_path / "own"))
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    first = saved(tmp_path / "own").identity()
    assert saved(tmp_path / "copy").identity() == first
    table(20, seed=5).save_to_disk(str(tmp_path / "other"))
    assert saved(tmp_path / "other").identity() != first


def test_what_is_not_there_is_a_typed_error(library, tmp_path):
    with pytest.raises(DataError, match=r"cannot load the data set .*absent"):
        load_data(saved(tmp_path / "absent"))


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'netcarve\[huggingface\]'"):
        load_data(saved(tmp_path))
