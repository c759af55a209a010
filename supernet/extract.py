"""Subnet: a plain module built from LayerSpecs alone, and its file format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spaces.cost import tensor_layout
from spaces.errors import ConfigError
from spaces.files import atomic_write_bytes, atomic_write_text
from spaces.layer_spec import LayerSpec
from supernet.activations import apply_activation
from supernet.errors import CheckpointError
from supernet.subnet_layers import InputQuantizer, IntegerConv2d, IntegerLinear, build_layer

WEIGHTS_FILE = "subnet.safetensors"
SPECS_FILE = "subnet.json"
SUBNET_FILES = (SPECS_FILE, WEIGHTS_FILE)


class Subnet(nn.Module):
    """A subnet that knows nothing of elasticity.

    Quantised layers execute `netcarve::quantize`, `netcarve::qconv2d` and `netcarve::qlinear`, or
    `netcarve::qconv2d_grouped` and `netcarve::qlinear_grouped` where groups of inputs have scales;
    weight-only ones `netcarve::weight_only_linear`; `netcarve::unpack` precedes them where weights
    are stored in fewer than 8 bits.
    The state dict is exactly `spaces.cost.tensor_layout` of the specs. `torch.export.export`
    accepts it.

    Args:
        specs: The layers in the order of execution.
    """

    def __init__(self, specs: Sequence[LayerSpec]) -> None:
        super().__init__()
        self.specs = tuple(specs)
        projected = {spec.block for spec in specs if spec.shortcut}
        self._identity_blocks = {spec.block for spec in specs if spec.residual} - projected
        for spec in specs:
            *parents, name = spec.site.split(".")
            holder: nn.Module = self
            for parent in parents:
                if not hasattr(holder, parent):
                    holder.add_module(parent, nn.Module())
                holder = getattr(holder, parent)
            holder.add_module(name, build_layer(spec))
        self.eval()

    @property
    def resolution(self) -> int:
        """Height and width of the input, in pixels."""
        return self.specs[0].in_size

    def forward(self, x: Tensor) -> Tensor:
        """float32 images [N, C, R, R] -> float32 logits [N, classes]."""
        previous = ""
        shortcut = x
        for spec in self.specs:
            layer = self.get_submodule(spec.site)
            assert isinstance(layer, InputQuantizer)
            quantized = spec.precision.activation is not None
            read = layer.quantize(x) if quantized else x
            if spec.block != previous and spec.block in self._identity_blocks:
                shortcut = layer.dequantize(read) if quantized else x
            previous = spec.block
            if quantized and not isinstance(layer, IntegerConv2d | IntegerLinear):
                read = layer.dequantize(read)
            out = apply_activation(layer(read), spec.activation)
            if spec.shortcut:
                shortcut = out
                continue
            x = out
            if spec.residual:
                x = apply_activation(x + shortcut, spec.residual_activation)
        return x


def subnet_from_tensors(specs: Sequence[LayerSpec], tensors: Mapping[str, Tensor]) -> Subnet:
    """A subnet with these tensors, named as in `spaces.cost.tensor_layout`.

    Raises:
        CheckpointError: A tensor is missing, unknown, or has another dtype or shape.
    """
    layout = {name: want for spec in specs for name, want in tensor_layout(spec).items()}
    wrong = sorted(layout.keys() ^ tensors.keys())
    if wrong:
        raise CheckpointError(f"tensors of the subnet do not match its layers: {wrong[:3]}")
    for name, (dtype, shape) in layout.items():
        tensor = tensors[name]
        if tensor.dtype is not getattr(torch, dtype) or tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}; its layer has {dtype} {shape}"
            )
    subnet = Subnet(specs)
    subnet.load_state_dict(dict(tensors))
    return subnet


def save_subnet(subnet: Subnet, folder: str | Path) -> None:
    """Write `subnet.safetensors` and `subnet.json` (the specs) into `folder`, atomically each."""
    tensors = {name: tensor.contiguous() for name, tensor in subnet.state_dict().items()}
    atomic_write_bytes(Path(folder) / WEIGHTS_FILE, save(tensors))
    text = json.dumps({"layers": [spec.to_json() for spec in subnet.specs]}, indent=1)
    atomic_write_text(Path(folder) / SPECS_FILE, text)


def load_subnet(folder: str | Path) -> Subnet:
    """The subnet that `save_subnet` wrote.

    Raises:
        CheckpointError: A file is missing or damaged; the message names it.
    """
    specs_path, weights_path = Path(folder) / SPECS_FILE, Path(folder) / WEIGHTS_FILE
    try:
        layers = json.loads(specs_path.read_text())["layers"]
        specs = tuple(LayerSpec.from_json(layer) for layer in layers)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"cannot read the subnet's layers in {specs_path}: {error}") from None
    try:
        tensors = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights in {weights_path}: {error}") from None
    return subnet_from_tensors(specs, tensors)
