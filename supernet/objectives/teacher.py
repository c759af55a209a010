"""An external teacher: a trained subnet or supernet read from its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spaces.families import Family
from spaces.files import sha256_bytes, sha256_file
from spaces.layer_spec import LayerSpec
from supernet.data import resize
from supernet.errors import CheckpointError, SupernetConfigError
from supernet.extract import SPECS_FILE, SUBNET_FILES, Subnet, load_subnet
from supernet.store import SUPERNET_FILES, load_supernet
from supernet.supernet import Supernet


class Teacher:
    """Gives logits for images of any resolution; its weights never change.

    Args:
        folder: What `save_subnet` or `train_supernet` left; of a supernet, the largest config
            teaches.
        family: Of the pupils, whose channels and classes the teacher must have.
        device: Where it computes.

    Raises:
        CheckpointError: A file is missing or damaged; the message names it.
        SupernetConfigError: It has other channels or classes.
    """

    def __init__(self, folder: Path, family: Family, device: torch.device) -> None:
        module = _read(folder).to(device).eval()
        specs = module.specs if isinstance(module, Subnet) else _largest_specs(module)
        found = (specs[0].in_channels, specs[-1].out_channels)
        wanted = (family.input_channels, family.classes)
        if found != wanted:
            raise SupernetConfigError(
                f"teacher {folder} has (channels, classes) {found}; the supernet has {wanted}"
            )
        self.module = module

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """[n, classes] for images [n, c, r, r], resized to its own resolution."""
        found: Tensor = self.module(resize(images, self.module.resolution))
        return found


def teacher_digest(folder: Path) -> str:
    """SHA-256 of a stored teacher's files, wherever it lies, in hexadecimal.

    Raises:
        CheckpointError: A file cannot be read; the message names it.
    """
    files = SUBNET_FILES if _is_subnet(folder) else SUPERNET_FILES
    try:
        return sha256_bytes("".join(sha256_file(folder / name) for name in files).encode())
    except OSError as error:
        raise CheckpointError(
            f"cannot read teacher {error.filename}: {error.strerror}; allowed: the folder of a "
            f"stored subnet ({', '.join(SUBNET_FILES)}) or supernet ({', '.join(SUPERNET_FILES)})"
        ) from None


def _read(folder: Path) -> Subnet | Supernet:
    return load_subnet(folder) if _is_subnet(folder) else load_supernet(folder)


def _is_subnet(folder: Path) -> bool:
    return (folder / SPECS_FILE).exists()


def _largest_specs(supernet: Supernet) -> tuple[LayerSpec, ...]:
    return supernet.space.layer_specs(supernet.space.max_config())
