from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from predictors import PredictorFileError
from predictors.predictor_file import read_predictor, write_predictor


def test_back_and_forth(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array([1, 2])}
    write_predictor(tmp_path / "file", "one", {"settings": {"x": 1}}, arrays)
    described, found = read_predictor(tmp_path / "file", "one")
    assert described["settings"] == {"x": 1}
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
    # Without any array, and over what was there.
    write_predictor(tmp_path / "file", "two", {}, {})
    assert read_predictor(tmp_path / "file", "two")[0]["predictor"] == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_predictor(tmp_path):
    file = tmp_path / "file"
    with pytest.raises(PredictorFileError, match="file"):
        read_predictor(file, "one")
    file.write_bytes(b"no safetensors")
    with pytest.raises(PredictorFileError, match="is no predictor"):
        read_predictor(file, "one")
    for metadata in (None, {"netcarve": "{"}, {"netcarve": "{}"}, {"netcarve": "[1]"}):
        save_file({"a": np.zeros(2)}, file, metadata=metadata)
        with pytest.raises(PredictorFileError, match="is no predictor"):
            read_predictor(file, "one")
    write_predictor(file, "two", {}, {})
    with pytest.raises(PredictorFileError, match="'two' in format 1, expected 'one'"):
        read_predictor(file, "one")
    write_predictor(file, "one", {}, {})
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PredictorFileError, match="is no predictor"):
        read_predictor(file, "one")
