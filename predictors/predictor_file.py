"""Files of fitted predictors: safetensors, with the rest as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.errors import PredictorFileError
from spaces.files import atomic_write_bytes

FORMAT = 1
_METADATA = "netcarve"


def write_predictor(
    file: str | Path, name: str, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a predictor; nothing is pickled. A file that is there is replaced whole.

    Args:
        file: Where.
        name: Of the predictor, which `read_predictor` asks for.
        described: What is ready for JSON.
        arrays: The rest, by name.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    tensors = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    # An empty file of tensors has no metadata.
    tensors.setdefault("format", np.array([FORMAT]))
    text = json.dumps({"format": FORMAT, "predictor": name, **described})
    atomic_write_bytes(Path(file), save(tensors, metadata={_METADATA: text}))


def read_predictor(file: str | Path, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `write_predictor` was given: the description and the arrays.

    Raises:
        PredictorFileError: The file cannot be read, is damaged, or holds another predictor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as opened:
            described = json.loads((opened.metadata() or {})[_METADATA])
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        found = described["format"], described["predictor"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PredictorFileError(f"{str(file)!r} is no predictor: {error}") from None
    if found != (FORMAT, name):
        raise PredictorFileError(
            f"{str(file)!r} holds the predictor {found[1]!r} in format {found[0]}, "
            f"expected {name!r} in format {FORMAT}"
        )
    return described, arrays
