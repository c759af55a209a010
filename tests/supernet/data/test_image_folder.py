from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.data import DataConfig, EncodedRows, load_data
from supernet.errors import DataError


def folder(path, **settings):
    return DataConfig(name="image_folder", path=path, settings={"size": 8, **settings})


def pixels(path):
    """float32 [3, h, w] in 0..1."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255


def test_labels_are_the_places_of_the_sorted_class_names(write_images):
    for name in ("dog", "ant", "cat"):
        root = write_images(name, 10)
    data = load_data(folder(root))
    assert data.names == ("ant", "cat", "dog")
    assert data.classes == 3
    assert [len(data.split(name)) for name in ("train", "selection", "report")] == [18, 6, 6]
    assert data.selection.labels.bincount().tolist() == [2, 2, 2]
    sources = {
        pixels(file).numpy().tobytes(): data.names.index(file.parent.name)
        for file in root.glob("*/*.png")
    }
    for part in (data.train, data.selection, data.report):
        for image, label in zip(part.images[:], part.labels, strict=True):
            assert sources.pop(image.numpy().tobytes()) == label
    assert not sources, "every file is in one split"


def test_a_validation_folder_is_the_report_split(write_images):
    for name in ("ant", "bee"):
        write_images(f"train/{name}", 10)
    write_images("val/bee", 3)
    root = write_images("test/unlabelled", 2)
    data = load_data(folder(root))
    assert data.names == ("ant", "bee")
    assert data.report.labels.tolist() == [1, 1, 1]
    expected = torch.stack([pixels(file) for file in sorted(root.glob("val/bee/*"))])
    assert torch.equal(data.report.images[:], expected)
    assert (len(data.train), len(data.selection)) == (16, 4)
    write_images("val/cow", 3)
    with pytest.raises(DataError, match=r"val has the class 'cow', which .*train does not have"):
        load_data(folder(root))


def test_a_folder_beside_train_that_is_none_of_its_splits_is_named(write_images):
    write_images("train/ant", 6)
    root = write_images("validation/ant", 6)
    message = r"has the folder 'validation' beside 'train', .* allowed beside it: 'val'"
    with pytest.raises(DataError, match=message):
        load_data(folder(root))


def test_reading_is_reported_when_images_are_kept(write_images):
    write_images("a", 80)
    root = write_images("b", 70)
    said = []
    load_data(folder(root), lambda *what: said.append(what))
    assert said == [("read images", 1, 150), ("read images", 101, 150), ("read images", 150, 150)]
    said.clear()
    load_data(folder(root, cache_mb=0), lambda *what: said.append(what))
    assert not said


def test_classes_may_be_called_as_splits(write_images):
    write_images("train", 6)
    data = load_data(folder(write_images("val", 6)))
    assert data.names == ("train", "val")
    assert len(data.report) == 2


def test_grey_and_colour_by_the_channels(write_images):
    write_images("a", 5, mode="L")
    root = write_images("b", 5, mode="RGBA", size=(20, 12))
    assert load_data(folder(root)).train.images.shape[1:] == (3, 8, 8)
    assert load_data(folder(root, channels=1)).train.images.shape[1:] == (1, 8, 8)


def test_files_that_are_no_images_are_passed_over(write_images):
    root = write_images("a", 6)
    write_images("b", 6, suffix="bmp")
    (root / "a" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    (root / "README.md").write_text("about")
    data = load_data(folder(root))
    assert sum(len(data.split(name)) for name in ("train", "selection", "report")) == 12


def test_a_broken_image_is_named_at_once_or_when_it_is_used(write_images):
    root = write_images("a", 6)
    write_images("b", 6)
    broken = root / "b" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    message = r"cannot read image .*b/003\.png: "
    with pytest.raises(DataError, match=message):
        load_data(folder(root))
    data = load_data(folder(root, cache_mb=0))
    everything = [data.split(name).images for name in ("train", "selection", "report")]
    with pytest.raises(DataError, match=message):
        [images[:] for images in everything]


def test_links_are_refused(write_images, tmp_path):
    root = write_images("a", 6)
    write_images("b", 6)
    outside = tmp_path / "outside.png"
    shutil.copy(root / "a" / "000.png", outside)
    link = root / "b" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(DataError, match=r"b/link\.png is a symbolic link"):
        load_data(folder(root))
    link.unlink()
    (root / "c").symlink_to(root / "a")
    with pytest.raises(DataError, match="images/c is a symbolic link"):
        load_data(folder(root))
    (root / "c").unlink()
    # The folder that the user names is theirs to choose.
    (tmp_path / "named").symlink_to(root)
    assert load_data(folder(tmp_path / "named")).classes == 2


def test_unusable_folders_are_typed_errors(write_images, tmp_path):
    with pytest.raises(DataError, match=r"cannot read the folder .*absent"):
        load_data(folder(tmp_path / "absent"))
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match=r"no class folders; images are expected as .*CLASS/FILE"):
        load_data(folder(tmp_path / "flat"))
    root = write_images("a", 6)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"class folder .*empty has no images; allowed: \.bmp"):
        load_data(folder(root))
    (root / "empty" / "inner").mkdir()
    with pytest.raises(DataError, match="holds the folder 'inner'"):
        load_data(folder(root))
    shutil.rmtree(root / "empty")
    write_images("b", 4)
    with pytest.raises(DataError, match=r"class 1 \(b\) has 4 images"):
        load_data(folder(root))


def test_what_does_not_fit_in_memory_is_the_same(write_images):
    write_images("a", 8)
    root = write_images("b", 8, size=(11, 9))
    kept = load_data(folder(root))
    read = load_data(folder(root, cache_mb=0, decode_threads=2))
    rows = torch.tensor([4, 0, 3])
    assert isinstance(read.train.images, EncodedRows)
    assert torch.equal(kept.train.images[rows], read.train.images[rows])
    assert torch.equal(kept.train.images[2:5], read.train.images[2:5])
    assert kept.train.fingerprint == read.train.fingerprint


def test_the_content_and_not_the_place_decides_the_identity(write_images, tmp_path):
    write_images("a", 6)
    root = write_images("b", 6)
    shutil.copytree(root, tmp_path / "copy")
    first = folder(root)
    assert first.identity() == folder(tmp_path / "copy").identity()
    before, fingerprint = first.identity(), load_data(first).train.fingerprint
    assert fingerprint == load_data(folder(tmp_path / "copy")).train.fingerprint
    # An image in another class, with the same bytes.
    (root / "a" / "005.png").rename(root / "b" / "006.png")
    assert first.identity() != before
    (root / "b" / "006.png").rename(root / "a" / "005.png")
    assert first.identity() == before
    image = root / "b" / "000.png"
    image.write_bytes((root / "b" / "001.png").read_bytes())
    assert first.identity() != before
    assert load_data(first).train.fingerprint != fingerprint
