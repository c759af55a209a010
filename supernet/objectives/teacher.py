"""An external teacher: a trained subnet or supernet read from its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spaces.families import Family
from spaces.layer_spec import LayerSpec
from supernet.data import resize
from supernet.errors import SupernetConfigError
from supernet.extract import SPECS_FILE, Subnet, load_subnet
from supernet.store import load_supernet
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


def _read(folder: Path) -> Subnet | Supernet:
    return load_subnet(folder) if (folder / SPECS_FILE).exists() else load_supernet(folder)


def _largest_specs(supernet: Supernet) -> tuple[LayerSpec, ...]:
    return supernet.space.layer_specs(supernet.space.max_config())
