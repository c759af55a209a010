"""Checkpoints of a training run: safetensors and JSON, atomic, the newest two kept.

A checkpoint is one folder `step-00001234` with `tensors.safetensors` and `state.json`; the latter
holds the hashes of the former and of its own content, so that damage is noticed before anything is
used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from spaces.files import atomic_directory, sha256_bytes
from supernet.errors import CheckpointError, ForeignCheckpointError

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
        path: The folder that it was read from.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path | None = None


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below `folder` and remove all but the newest two; returns its path."""
    root = Path(folder)
    path = root / f"step-{checkpoint.step:08d}"
    data = save({name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()})
    content = {"step": checkpoint.step, "tensors": sha256_bytes(data), "state": checkpoint.state}
    header = {"sha256": _hash(content), **content}
    # A run that was killed while writing leaves its temporary folder behind, and on a full disk
    # its place is needed.
    for left in root.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)
    with atomic_directory(path) as temporary:
        (temporary / _TENSORS).write_bytes(data)
        (temporary / _STATE).write_text(json.dumps(header))
    for old in _folders(root)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: A file is missing, damaged or of another format; the message names it.
    """
    state_path, tensors_path = Path(path) / _STATE, Path(path) / _TENSORS
    try:
        content = dict(json.loads(state_path.read_text()))
        if content.pop("sha256") != _hash(content):
            raise CheckpointError(f"checkpoint {state_path} does not match its recorded hash")
        step, digest, state = int(content["step"]), content["tensors"], dict(content["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read checkpoint {state_path}: {error}") from None
    try:
        data = tensors_path.read_bytes()
        if sha256_bytes(data) != digest:
            raise CheckpointError(f"checkpoint {tensors_path} does not match its recorded hash")
        return Checkpoint(step, load(data), state, Path(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read checkpoint {tensors_path}: {error}") from None


def load_latest(
    folder: str | Path, use: Callable[[Checkpoint], None] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest usable checkpoint below `folder`.

    Args:
        folder: Where `save_checkpoint` wrote.
        use: Called with every readable checkpoint, newest first, until it raises no
            CheckpointError.

    Returns:
        The checkpoint (None when there never was one) and a message for every newer one that was
        damaged or unusable and passed over.

    Raises:
        CheckpointError: Checkpoints exist and none can be used.
        ForeignCheckpointError: `use` raised it.
    """
    problems: list[str] = []
    for path in reversed(_folders(Path(folder))):
        try:
            checkpoint = read_checkpoint(path)
            if use is not None:
                use(checkpoint)
            return checkpoint, problems
        except ForeignCheckpointError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no usable checkpoint in {folder}: {'; '.join(problems)}")
    return None, problems


def checkpoint_step(folder: str | Path) -> int | None:
    """Steps of the newest checkpoint below `folder`, which is not read; None: there is none."""
    folders = _folders(Path(folder))
    return int(folders[-1].name.removeprefix("step-")) if folders else None


def discard_checkpoints(folder: str | Path) -> None:
    """Remove all checkpoints below `folder`, whose training is done and kept elsewhere."""
    for path in _folders(Path(folder)):
        shutil.rmtree(path, ignore_errors=True)


def _hash(content: Mapping[str, Any]) -> str:
    """Of JSON content, whatever its formatting."""
    return sha256_bytes(json.dumps(content, sort_keys=True).encode())


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob("step-*")) if root.is_dir() else []
