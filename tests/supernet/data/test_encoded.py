from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from supernet.data import decode_image
from supernet.errors import DataError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_the_shorter_side_is_scaled_and_the_middle_cut_out():
    """16x8 pixels in four columns of one grey each: the two in the middle are left."""
    columns = np.repeat(np.array([10, 80, 160, 240], np.uint8), 4)
    image = Image.fromarray(np.tile(columns, (8, 1)))
    same = decode_image(encoded(image), "x", 1, 8)
    assert same.dtype == np.uint8
    assert same.shape == (1, 8, 8)
    assert (same[0] == [80] * 4 + [160] * 4).all()
    smaller = decode_image(encoded(image), "x", 1, 4)[0]
    assert smaller.shape == (4, 4)
    assert (smaller[:, 0] < 100).all()
    assert (smaller[:, -1] > 140).all()
    assert decode_image(encoded(image), "x", 3, 20).shape == (3, 20, 20)


def test_a_photograph_stands_upright():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held to the left: turn it to the right
    turned = decode_image(encoded(image, exif=exif), "x", 1, 8)[0]
    assert np.array_equal(turned, np.rot90(np.asarray(image), -1))


def test_colours_become_grey_and_grey_becomes_colour():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert np.unique(decode_image(encoded(red), "x", 1, 4)).tolist() == [76]
    grey = decode_image(encoded(Image.new("L", (4, 4), 9)), "x", 3, 4)
    assert np.unique(grey).tolist() == [9]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read image x"),
        (b"GIF89a" + bytes(20), "cannot read image x"),
        (encoded(Image.new("RGB", (9, 9)), "GIF"), "cannot read image x"),
        (encoded(Image.new("RGB", (9, 9)))[:40], "cannot read image x"),
        (encoded(Image.new("I;16", (9, 9))), "image x has pixels of mode I;16; allowed: 8 bits"),
    ],
    ids=["empty", "header alone", "another format", "cut off", "16 bits"],
)
def test_what_cannot_be_read_is_a_typed_error(content, message):
    with pytest.raises(DataError, match=message):
        decode_image(content, "x", 3, 8)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_in_a_file_is_a_typed_error_or_no_error():
    """Pillow's own errors are of many types."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "software"
    chance = np.random.default_rng(0)
    image = Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8))
    whole = encoded(image, "JPEG", exif=exif)
    # The type of a field that is written again when the image is turned upright.
    place = whole.index(b"software") - 12
    refused = 0
    for value in range(256):
        damaged = bytearray(whole)
        damaged[place - 12 + value % 24] = value
        try:
            decode_image(bytes(damaged), "x", 3, 8)
        except DataError:
            refused += 1
    assert 0 < refused < 256


def test_a_line_of_pixels_is_cut_before_it_is_scaled():
    """Scaled as a whole it would take 25 GB."""
    line = np.zeros((1, 300_000), np.uint8)
    line[0, 149_990:150_010] = 200
    found = decode_image(encoded(Image.fromarray(line)), "x", 1, 288)
    assert np.unique(found).tolist() == [200]


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"x: .*exceeds limit"):
        decode_image(encoded(Image.new("L", (40, 40))), "x", 1, 8)
