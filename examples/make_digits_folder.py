"""Write scikit-learn's digits as a folder of PNG files, one folder for each digit.

    python examples/make_digits_folder.py digits-folder

`examples/imagefolder-resnet.yaml` reads that folder as it would read any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(folder: Path) -> int:
    """Write `folder`/NAME/NUMBER.png, 8x8 pixels of grey each; how many there are."""
    digits: Any = load_digits()
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        # Digits have 17 shades.
        grey = np.round(pixels * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).save(folder / NAMES[label] / f"{number:04d}.png")
    return len(digits.images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("digits-folder"))
    chosen = parser.parse_args().folder
    print(f"{write(chosen)} images in {chosen}")
