"""Labels of compiled integer binaries against those of the networks that training knew.

A supernet of `mobilenetv3_digits` is trained. Ten random subnets with W8A8 in every layer that can
have it, and ten with W4A8, are extracted and compiled. Every image of the data set is classified
three times: by the fake-quantised subnet (float32, inside the supernet), by the extracted subnet
(integers, PyTorch) and by the binary. They may differ only where a value lies on the edge between
two steps. Flips are pooled over the subnets of a precision.

    python benchmarks/label_flips.py [--subnets N] [--json FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _figures import report, show_figures

from compilers import DeviceConfig, LocalCpu
from compilers.devices import Device
from spaces import Config, SearchSpace, get_space
from spaces.population import sample
from supernet import (
    DataConfig,
    DataSplits,
    Supernet,
    SupernetConfig,
    load_data,
    prepare,
    resize,
    train_supernet,
)

SPACE = "mobilenetv3_digits"
SUBNETS = 10
SEED = 30
BITS = (8, 4)
TRAINING = SupernetConfig(seed=SEED)
TARGETS = {f"w{bits}a8_flips_percent": ["<=", 0.2] for bits in BITS}


def quantised_space() -> SearchSpace:
    """The digits space with 4-bit weights among its choices."""
    description = get_space(SPACE).to_json()
    settings = description["settings"] | {"schemes": ["fp32", "w4a8", "w8a8"]}
    return SearchSpace.from_json({**description, "settings": settings, "choices": None})


def labels_of(
    supernet: Supernet, config: Config, data: DataSplits, device: Device, folder: Path
) -> np.ndarray[Any, Any]:
    """Labels [3, images] by the fake-quantised subnet, the extracted one and the binary."""
    subnet = prepare(supernet, config, data)
    splits = (data.train, data.selection, data.report)
    images = resize(torch.cat([split.images for split in splits]), subnet.resolution)
    build = device.build(subnet, subnet.specs, folder, images[:8].numpy())
    supernet.eval()
    with torch.inference_mode():
        logits = [
            torch.cat([module(chunk) for chunk in torch.split(images, 256)]).numpy()
            for module in (supernet, subnet)
        ]
    logits.append(device.run(build, images.numpy()))
    return np.stack([values.argmax(axis=1) for values in logits])


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=SUBNETS, help="per precision")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    space, data = quantised_space(), load_data(DataConfig())
    truth = torch.cat([split.labels for split in (data.train, data.selection, data.report)]).numpy()
    figures: dict[str, float] = {}
    print("precision  accuracy %  flips against fake-quantised %  against extracted %")
    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as scratch:
        supernet = train_supernet(space, TRAINING, data, Path(scratch) / "supernet", report)
        with LocalCpu(DeviceConfig(name="benchmark")) as device:
            for bits in BITS:
                restricted = space.restrict(choices={"*.w_bits": [bits]})
                rows = sample(restricted, options.subnets, np.random.default_rng(SEED))
                found = np.stack(
                    [
                        labels_of(
                            supernet,
                            restricted.from_indices(row),
                            data,
                            device,
                            Path(scratch) / f"w{bits}-{number}",
                        )
                        for number, row in enumerate(rows)
                    ]
                )  # [subnets, 3, images]
                trained, extracted, binary = found.swapaxes(0, 1)
                flips = 100 * float((binary != trained).mean())
                own = 100 * float((binary != extracted).mean())
                right = 100 * float((binary == truth).mean())
                print(f"w{bits}a8 {right:15.2f} {flips:31.4f} {own:20.4f}", flush=True)
                figures[f"w{bits}a8_flips_percent"] = flips
                figures[f"w{bits}a8_flips_against_extracted_percent"] = own
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
