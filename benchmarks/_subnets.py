"""Random subnets of the digits space, compiled: what several benchmarks time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _peers import waiting

if TYPE_CHECKING:
    from compilers import Build, Device

SPACE = "mobilenetv3_digits"
BITS = {"fp32": 32, "int8": 8}


@dataclass(frozen=True, slots=True)
class BuiltSubnet:
    """One subnet.

    Attributes:
        label: Its precision and number.
        precision: A name in `BITS`.
        build: What the device made of it.
        onnx: Its ONNX twin.
    """

    label: str
    precision: str
    build: Build
    onnx: Path


def build_subnets(
    device: Device, folder: Path, counts: Mapping[str, int], seed: int
) -> list[BuiltSubnet]:
    """Extract random subnets, untrained and calibrated on digits; build, check and export them.

    Args:
        device: Builds them.
        folder: Receives a folder and an ONNX model for each.
        counts: Precision -> how many subnets.
        seed: Of the weights and of the choice.
    """
    import numpy as np
    import torch

    from search.host_lock import HostLock
    from spaces import get_space
    from spaces.population import sample
    from supernet import DataConfig, build_supernet, load_data, prepare, resize

    torch.manual_seed(seed)
    space = get_space(SPACE)
    supernet, data = build_supernet(space), load_data(DataConfig())
    rng = np.random.default_rng(seed)
    built = []
    with HostLock().shared("building the benchmark's subnets", on_wait=waiting):
        for precision, count in counts.items():
            restricted = space.restrict(choices={"*.w_bits": [BITS[precision]]})
            for index, row in enumerate(sample(restricted, count, rng)):
                config = restricted.from_indices(row)
                images = data.train.images[:128]
                supernet.calibrate([(config, resize(images, config["resolution"]))])
                subnet = prepare(supernet, config, data)
                inputs = resize(data.selection.images[:8], subnet.resolution).numpy()
                label = f"{precision}-{index}"
                build = device.build(subnet, subnet.specs, folder / label, inputs)
                onnx = folder / f"{label}.onnx"
                difference = device.export_onnx(build, onnx)
                print(
                    f"built {label}: resolution {subnet.resolution}, {len(build.kernels)} kernels, "
                    f"{build.seconds:.1f} s, differs {build.difference:.0e} "
                    f"(ONNX {difference:.0e})",
                    flush=True,
                )
                built.append(BuiltSubnet(label, precision, build, onnx))
    return built
