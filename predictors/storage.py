"""Predictors on disk: a JSON header and a safetensors file in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from predictors.errors import PredictorFileError
from spaces.files import atomic_directory, sha256_bytes

FORMAT = 1
HEADER = "predictor.json"
ARRAYS = "predictor.safetensors"


def save_arrays(
    folder: str | Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]
) -> None:
    """Write `header` and `arrays` into `folder`, replacing it as a whole."""
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    full = {"format": FORMAT, **header, "sha256": sha256_bytes(data)}
    with atomic_directory(folder) as temporary:
        (temporary / HEADER).write_text(json.dumps(full, indent=2, sort_keys=True) + "\n")
        (temporary / ARRAYS).write_bytes(data)


def load_arrays(
    folder: str | Path, name: str, space_key: str
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Header and arrays of a stored predictor.

    Raises:
        PredictorFileError: Missing, damaged, or its `name` or space is not the expected one.
    """
    path = Path(folder)
    try:
        header = json.loads((path / HEADER).read_text())
        data = (path / ARRAYS).read_bytes()
    except (OSError, ValueError) as error:
        raise PredictorFileError(f"cannot read the predictor in {path}: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise PredictorFileError(f"{path / HEADER} is not a predictor of format {FORMAT}")
    for key, expected in (("name", name), ("space", space_key), ("sha256", sha256_bytes(data))):
        if header.get(key) != expected:
            raise PredictorFileError(
                f"predictor in {path}: {key} is {header.get(key)!r}, expected {expected!r}"
            )
    try:
        return header, load(data)
    except SafetensorError as error:
        raise PredictorFileError(f"damaged {path / ARRAYS}: {error}") from None
