"""Subnets as a user of plain PyTorch would write and train them: `nn.Conv2d`, `nn.BatchNorm2d`.

Built from a config's LayerSpecs, with random weights; nothing of netcarve runs inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces import LayerSpec
from spaces.layer_spec import Activation, Operator

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.NONE: nn.Identity,
    Activation.RELU: nn.ReLU,
    Activation.HARDSWISH: nn.Hardswish,
}


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out + x


class _ChannelsLast(nn.Module):
    """A single-channel image cannot ask for channels-last, so the first map does."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def _layer(spec: LayerSpec) -> nn.Module:
    match spec.operator:
        case Operator.CONV | Operator.DEPTHWISE_CONV:
            conv = nn.Conv2d(
                spec.in_channels,
                spec.out_channels,
                spec.kernel,
                spec.stride,
                spec.padding,
                groups=spec.groups,
                bias=False,
            )
            norm = nn.BatchNorm2d(spec.out_channels)
            return nn.Sequential(conv, norm, _ACTIVATIONS[spec.activation]())
        case Operator.SQUEEZE_EXCITE:
            return _SqueezeExcite(spec.out_channels, spec.hidden_channels)
        case Operator.GLOBAL_POOL:
            return _Pool()
        case Operator.LINEAR:
            return nn.Linear(spec.in_channels, spec.out_channels)
        case _:
            raise ValueError(f"{spec.site}: no plain layer for {spec.operator}")


def plain_net(specs: Sequence[LayerSpec]) -> nn.Module:
    """float32 images [N, C, R, R] -> logits [N, classes], in training mode and channels-last."""
    modules: list[nn.Module] = []
    block: list[nn.Module] = []
    for number, spec in enumerate(specs):
        block.append(_layer(spec))
        if number == 0:
            block.append(_ChannelsLast())
        here = spec.site.rpartition(".")[0]
        following = specs[number + 1].site.rpartition(".")[0] if number + 1 < len(specs) else ""
        if not here or here != following:
            inner = nn.Sequential(*block)
            modules.append(_Residual(inner) if spec.residual else inner)
            block = []
    return nn.Sequential(*modules).to(memory_format=torch.channels_last).train()
