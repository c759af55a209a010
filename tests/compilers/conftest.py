"""Small subnets with random weights, built from LayerSpecs alone, and a device to build them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compilers.build import build_library, kernel_records
from compilers.built import LIBRARY_FILE, Build
from compilers.bundle import BundleInfo, write_bundle
from compilers.devices import DeviceConfig, LocalCpu
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_library import KernelLibrary
from compilers.native import build_native
from spaces.cost import tensor_layout
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import FP32, W8A8, LayerPrecision
from supernet.extract import Subnet, subnet_from_tensors

RESOLUTION = 12


def _specs(conv: LayerPrecision, tail: LayerPrecision) -> tuple[LayerSpec, ...]:
    """A stem, a residual block with squeeze-and-excite, a strided block, and a classifier."""
    half, quarter = RESOLUTION // 2, RESOLUTION // 4
    relu, hardswish = Activation.RELU, Activation.HARDSWISH
    excite = replace(conv, weight=None)
    return (
        LayerSpec("stem", Operator.CONV, 1, 16, RESOLUTION, half, 3, 2, activation=hardswish),
        LayerSpec("a.expand", Operator.CONV, 16, 40, half, half, activation=relu, precision=conv),
        LayerSpec(
            "a.depthwise", Operator.DEPTHWISE_CONV, 40, 40, half, half, 3, 1, 40, relu, conv
        ),
        LayerSpec(
            "a.se", Operator.SQUEEZE_EXCITE, 40, 40, half, half, precision=excite,
            hidden_channels=16,
        ),
        LayerSpec(
            "a.project", Operator.CONV, 40, 16, half, half, precision=conv, residual=True
        ),
        LayerSpec(
            "b.expand", Operator.CONV, 16, 48, half, half, activation=hardswish, precision=tail
        ),
        LayerSpec(
            "b.depthwise", Operator.DEPTHWISE_CONV, 48, 48, half, quarter, 5, 2, 48, hardswish,
            conv,
        ),
        LayerSpec("b.project", Operator.CONV, 48, 24, quarter, quarter, precision=tail),
        LayerSpec(
            "head", Operator.CONV, 24, 64, quarter, quarter, activation=hardswish, precision=conv
        ),
        LayerSpec("pool", Operator.GLOBAL_POOL, 64, 64, quarter, 1),
        LayerSpec("classifier", Operator.LINEAR, 64, 10, precision=tail),
    )  # fmt: skip


SPECS = {
    "fp32": _specs(FP32, FP32),
    "w8a8": _specs(W8A8, W8A8),
    "mixed": _specs(W8A8, FP32),
}


def random_subnet(specs: tuple[LayerSpec, ...], seed: int = 0) -> Subnet:
    """Random weights, with quantisation constants that fit values of about unit size."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, torch.Tensor] = {}
    for previous, spec in zip((None, *specs), specs, strict=False):
        for name, (dtype, shape) in tensor_layout(spec).items():
            fan_in = max(1, int(np.prod(shape[1:])))
            role = name.rpartition(".")[2]
            array: np.ndarray
            if role == "input_scale":
                array = np.array(8.0 / 255)
            elif role == "input_zero_point":
                positive = previous is not None and previous.activation is Activation.RELU
                array = np.array(0 if positive else rng.integers(60, 130))
            elif role == "scale":
                scheme = spec.precision.weight
                assert scheme is not None
                spread = 70 / 128 * 2 ** (scheme.bits - 1) * np.sqrt(np.prod(spec.weight_shape[1:]))
                array = rng.uniform(0.5, 1.5, shape) / spread
                array /= 1 if spec.precision.weight_only else 32
            elif dtype == "int8":
                array = rng.integers(-127, 128, shape)
            elif dtype == "uint8":
                array = rng.integers(0, 256, shape)  # packed integers of any width
            elif dtype == "int32":
                array = rng.integers(-3000, 3000, shape)
            else:
                array = rng.normal(size=shape) * np.sqrt(2.0 / fan_in)
            tensors[name] = torch.from_numpy(np.asarray(array).astype(dtype))
    return subnet_from_tensors(specs, tensors)


@pytest.fixture(scope="session")
def subnets() -> dict[str, Subnet]:
    """`fp32`, `w8a8` and `mixed`."""
    return {name: random_subnet(specs) for name, specs in SPECS.items()}


@pytest.fixture(scope="session")
def make_subnet() -> Callable[..., Subnet]:
    return random_subnet


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of compiled kernels, shared by all tests of all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    cache = folder / "compiled"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def device(cache: Path) -> Iterator[LocalCpu]:
    with LocalCpu(DeviceConfig(name="native"), cache) as local:
        yield local


@pytest.fixture(scope="session")
def builds(
    device: LocalCpu, subnets: dict[str, Subnet], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Build]:
    folder = tmp_path_factory.mktemp("builds")
    return {
        name: device.build(subnet, subnet.specs, folder / name) for name, subnet in subnets.items()
    }


@pytest.fixture(scope="session")
def mixed_bundle(
    device: LocalCpu, builds: dict[str, Build], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of `mixed`."""
    folder = tmp_path_factory.mktemp("out") / "b"
    info = BundleInfo({"resolution": RESOLUTION}, "handmade")
    return write_bundle(folder, builds["mixed"], device, info, archive=False)


@pytest.fixture(scope="session")
def executable(mixed_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its native runner, in another folder than the one it was built in."""
    folder = tmp_path_factory.mktemp("native")
    made = build_native(mixed_bundle, folder / "built" / "net")
    moved = shutil.move(made.parent, folder / "a new place")
    return Path(moved) / made.name


class TokenNetwork(torch.nn.Module):
    """Tokens [1, 4] to logits [1, 4, 16]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(20, 16), torch.nn.Linear(16, 16)
        self.requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(tokens))


@pytest.fixture(scope="session")
def token_build(
    device: LocalCpu, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Build, torch.nn.Module]:
    """A network of int64 tokens, which no extracted subnet is, and its library."""
    module, folder = TokenNetwork(), tmp_path_factory.mktemp("tokens")
    graph = fuse(trace(module, (1, 4), "int64"))
    kernels = KernelLibrary(cache / "kernels")
    build_library(graph, device.isa, kernels, folder / LIBRARY_FILE)
    build = Build(
        folder=folder,
        specs=(),
        isa=device.isa.name,
        threads=1,
        cpu_flags=tuple(sorted(device.isa.cpu_flags)),
        input_shape=graph.input_shape,
        input_dtype=graph.input_dtype,
        output_shape=graph.output_shape,
        kernels=kernel_records(graph, device.isa, kernels),
        tolerance=1e-4,
        difference=0.0,
        seconds=0.0,
        hardware=device.hardware,
        versions={},
    )
    return build, module


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """float32 [16, 1, 12, 12]."""
    return np.random.default_rng(5).random((16, 1, RESOLUTION, RESOLUTION), dtype=np.float32)
