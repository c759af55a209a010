from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Write PNG files: `write("train/cat", 3, size=(8, 6))`; the folder of all of them.

    The pixels are random, decided by the file's path.
    """
    root = tmp_path / "images"

    def write(
        folder: str, count: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", suffix="png"
    ) -> Path:
        target = root / folder
        target.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng([number, *folder.encode()])
            channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
            pixels = rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
            Image.fromarray(pixels).save(target / f"{number:03d}.{suffix}")
        return root

    return write
