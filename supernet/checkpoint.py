"""Checkpoints of a training run: safetensors and JSON, atomic, the newest two kept.

A checkpoint is one folder `step-00001234` with `tensors.safetensors` and `state.json`; the latter
holds the hash of the former, so that damage is noticed before anything is used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from spaces.files import atomic_directory, sha256_bytes
from supernet.errors import CheckpointError

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: Steps done.
        tensors: Weights and optimiser state by name.
        state: Everything else, as JSON.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below `folder` and remove all but the newest two; returns its path."""
    root = Path(folder)
    path = root / f"step-{checkpoint.step:08d}"
    data = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    state = {"step": checkpoint.step, "sha256": sha256_bytes(data), "state": checkpoint.state}
    with atomic_directory(path) as temporary:
        (temporary / _TENSORS).write_bytes(data)
        (temporary / _STATE).write_text(json.dumps(state))
    # A run that was killed while writing leaves its temporary folder behind.
    for old in (*_folders(root)[:-_KEPT], *root.glob(".step-*")):
        shutil.rmtree(old, ignore_errors=True)
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: A file is missing, damaged or of another format; the message names it.
    """
    state_path, tensors_path = Path(path) / _STATE, Path(path) / _TENSORS
    try:
        header: Mapping[str, Any] = json.loads(state_path.read_text())
        step, digest, state = int(header["step"]), str(header["sha256"]), dict(header["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read checkpoint {state_path}: {error}") from None
    try:
        data = tensors_path.read_bytes()
        if sha256_bytes(data) != digest:
            raise CheckpointError(f"checkpoint {tensors_path} does not match its recorded hash")
        return Checkpoint(step, load(data), state)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read checkpoint {tensors_path}: {error}") from None


def load_latest(folder: str | Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest readable checkpoint below `folder`.

    Returns:
        The checkpoint (None when there never was one) and a message for every newer one that was
        damaged and passed over.

    Raises:
        CheckpointError: Checkpoints exist and all are damaged.
    """
    problems: list[str] = []
    for path in reversed(_folders(Path(folder))):
        try:
            return read_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no readable checkpoint in {folder}: {'; '.join(problems)}")
    return None, problems


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob("step-*")) if root.is_dir() else []
