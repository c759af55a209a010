"""A trained supernet on disk: weights, space, kind of quantiser and the recorded hash."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from spaces.errors import NetcarveError
from spaces.files import atomic_directory, sha256_bytes
from spaces.space import SearchSpace
from supernet.errors import CheckpointError
from supernet.families import build_supernet
from supernet.quantizers import PER_FORM
from supernet.supernet import Supernet

SUPERNET_FOLDER = "supernet"
_WEIGHTS = "supernet.safetensors"
_DESCRIPTION = "supernet.json"
SUPERNET_FILES = (f"{SUPERNET_FOLDER}/{_DESCRIPTION}", f"{SUPERNET_FOLDER}/{_WEIGHTS}")


def save_supernet(supernet: Supernet, folder: str | Path) -> None:
    """Write the weights and what they belong to below `folder`, all or nothing."""
    data = save({n: t.contiguous() for n, t in supernet.state_dict().items()})
    description = {
        "space": supernet.space.to_json(),
        "quantizer": supernet.quantizer,
        "sha256": sha256_bytes(data),
    }
    with atomic_directory(Path(folder) / SUPERNET_FOLDER) as temporary:
        (temporary / _WEIGHTS).write_bytes(data)
        (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=1))


def load_supernet(folder: str | Path) -> Supernet:
    """The trained supernet that `train_supernet(..., folder)` left and returned.

    In evaluation mode, the largest config active, with that config's BatchNorm statistics.

    Raises:
        CheckpointError: A file is missing or damaged; the message names it.
    """
    root = Path(folder) / SUPERNET_FOLDER
    try:
        description = json.loads((root / _DESCRIPTION).read_text())
        space, digest = SearchSpace.from_json(description["space"]), description["sha256"]
        # A file that names no kind has the default one.
        quantizer = str(description.get("quantizer", PER_FORM))
    except (OSError, ValueError, KeyError, TypeError, NetcarveError) as error:
        raise CheckpointError(f"cannot read supernet {root / _DESCRIPTION}: {error}") from None
    try:
        data = (root / _WEIGHTS).read_bytes()
        if sha256_bytes(data) != digest:
            raise CheckpointError(f"supernet {root / _WEIGHTS} does not match its recorded hash")
        supernet = build_supernet(space, quantizer)
        supernet.load_state_dict(load(data))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot read supernet {root / _WEIGHTS}: {error}") from None
    supernet.activate(space.max_config())
    return supernet.eval()
