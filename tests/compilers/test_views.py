from __future__ import annotations

import numpy as np
import pytest

from compilers.views import View

STORED = np.arange(4 * 6 * 10, dtype=np.float32).reshape(24, 10)


def whole(*shape):
    """A view of all of `STORED`, and the same in numpy."""
    view = View.of("x", STORED.shape).reshape(shape)
    assert view is not None
    return view, STORED.reshape(shape)


def check(view, expected):
    assert view.shape == expected.shape
    np.testing.assert_array_equal(view.read(STORED), expected)


def test_random_chains_of_views_are_those_of_numpy():
    rng = np.random.default_rng(0)
    uneven = 0
    for _ in range(300):
        view, array = whole(4, 6, 10)
        for _ in range(5):
            axis = int(rng.integers(array.ndim))
            match rng.integers(4):
                case 0:
                    order = rng.permutation(array.ndim)
                    view, array = view.permute(order), array.transpose(order)
                case 1:
                    start = int(rng.integers(array.shape[axis]))
                    length = int(rng.integers(1, array.shape[axis] - start + 1))
                    found = view.slice(axis, start, length)
                    expected = array.take(range(start, start + length), axis)
                    if found is None:
                        uneven += 1
                        continue
                    view, array = found, expected
                case 2:
                    array, view = array[:, None], view.reshape((view.shape[0], 1, *view.shape[1:]))
                    array = np.broadcast_to(array, (array.shape[0], 3, *array.shape[2:]))
                    view = view.expand(array.shape)
                case _:
                    joined = (*array.shape[:axis], -1, *array.shape[axis + 2 :])
                    array = array.reshape(joined)
                    view = view.reshape(array.shape)
            check(view, array)
    assert uneven < 300


def test_a_flattened_map_needs_no_copy():
    # [1, C, H, W] stored channels-last, then tokens and back.
    stored_map, array = whole(1, 4, 6, 10)
    stored_map, array = stored_map.permute((0, 3, 1, 2)), array.transpose(0, 3, 1, 2)
    flat = stored_map.reshape((1, 240))
    check(flat, array.reshape(1, 240))
    tokens = stored_map.reshape((1, 10, 24)).permute((0, 2, 1))
    assert tokens == View.of("x", (1, 24, 10))
    assert tokens.is_whole(240)
    assert flat.is_whole(240)
    assert not flat.slice(1, 0, 24).is_whole(240)


def test_an_axis_that_would_be_cut_unevenly_has_no_view():
    view, _ = whole(4, 60)
    assert view.permute((1, 0)).reshape((16, 15)) is None
    assert view.permute((1, 0)).reshape((240,)).slice(0, 2, 8) is None
    assert View.of("x", (240,)).slice(0, 2, 9).offset == 2


@pytest.mark.parametrize("index", [0, 7, 23])
def test_one_element_of_an_axis_of_several_digits(index):
    view, array = whole(4, 6, 10)
    joined = view.permute((1, 0, 2)).reshape((24, 10))
    expected = array.transpose(1, 0, 2).reshape(24, 10)[index : index + 1]
    check(joined.slice(0, index, 1), expected)
