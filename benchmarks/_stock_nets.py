"""Five well-known networks as plain torch modules, with seeded random weights.

MobileNetV3-small (Howard et al. 2019) and ResNet-18 (He et al. 2016) are those of torchvision;
ViT-tiny is DeiT's (Touvron et al. 2021); the hybrid has the stages of ElasticViT (Tang et al.
2023); the decoder is a small Llama (Touvron et al. 2023). Running statistics of BatchNorm come
from a calibration pass, so that activations have the spread that they have in a trained network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1000
VOCABULARY = 4096


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _divisible(channels: float) -> int:
    """The nearest multiple of 8, at most a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """[1, C, H, W] times one factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _divisible(channels / 4)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(hidden))


class MBConv(nn.Module):
    """Inverted residual: expand, depthwise, squeeze-and-excite, project."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        expanded: int,
        outputs: int,
        excite: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers += [*_conv(inputs, expanded, 1), activation()]
        layers += [*_conv(expanded, expanded, kernel, stride, expanded), activation()]
        if excite:
            layers.append(SqueezeExcite(expanded))
        self.layers = nn.Sequential(*layers, *_conv(expanded, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNetV3Small(nn.Module):
    """[1, 3, 224, 224] -> [1, 1000]."""

    _BLOCKS = (
        (16, 3, 16, 16, True, nn.ReLU, 2),
        (16, 3, 72, 24, False, nn.ReLU, 2),
        (24, 3, 88, 24, False, nn.ReLU, 1),
        (24, 5, 96, 40, True, nn.Hardswish, 2),
        (40, 5, 240, 40, True, nn.Hardswish, 1),
        (40, 5, 240, 40, True, nn.Hardswish, 1),
        (40, 5, 120, 48, True, nn.Hardswish, 1),
        (48, 5, 144, 48, True, nn.Hardswish, 1),
        (48, 5, 288, 96, True, nn.Hardswish, 2),
        (96, 5, 576, 96, True, nn.Hardswish, 1),
        (96, 5, 576, 96, True, nn.Hardswish, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 16, 3, 2), nn.Hardswish())
        self.blocks = nn.Sequential(*(MBConv(*block) for block in self._BLOCKS))
        self.last = nn.Sequential(*_conv(96, 576, 1), nn.Hardswish())
        self.classifier = nn.Sequential(
            nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the activation follows the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_conv(inputs, outputs, 3, stride), nn.ReLU())
        self.second = nn.Sequential(*_conv(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    """[1, 3, 224, 224] -> [1, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        inputs = 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _heads(x: Tensor, heads: int) -> Tensor:
    """[1, T, heads * D] -> [1, heads, T, D]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _tokens(x: Tensor) -> Tensor:
    """[1, heads, T, D] -> [1, T, heads * D]."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _map(x: Tensor, size: int) -> Tensor:
    """[1, size * size, C] -> [1, C, size, size]."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], size, size)


class ViTBlock(nn.Module):
    """Pre-norm self-attention and MLP over [1, T, C]."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[2]
        q, k, v = self.qkv(self.attention_norm(x)).split([channels] * 3, dim=2)
        attended = F.scaled_dot_product_attention(
            _heads(q, self.heads), _heads(k, self.heads), _heads(v, self.heads)
        )
        x = x + self.project(_tokens(attended))
        return x + self.mlp(self.mlp_norm(x))


class ViTTiny(nn.Module):
    """[1, 3, 224, 224] -> [1, 1000]: patches of 16, a class token, 12 blocks of 192, 3 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 16, 16)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, 192))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 197, 192))
        self.blocks = nn.Sequential(*(ViTBlock(192, 3) for _ in range(12)))
        self.norm = nn.LayerNorm(192, eps=1e-6)
        self.classifier = nn.Linear(192, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token, patches], dim=1) + self.positions
        return self.classifier(self.norm(self.blocks(x))[:, 0])


class HybridBlock(nn.Module):
    """Attention with heads of 16, wider values and a relative position bias, then an MLP.

    As in LeViT (Graham et al. 2021) and ElasticViT: a 3x3 depthwise convolution of the values, and
    hardswish before the projection. Maps [1, T, C] of T = size * size tokens.
    """

    def __init__(self, channels: int, size: int, value_scale: int, mlp_ratio: int) -> None:
        super().__init__()
        self.size, self.heads = size, channels // 16
        values = channels * value_scale
        self.widths = [channels, channels, values]
        self.attention_norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, sum(self.widths))
        self.local = nn.Conv2d(values, values, 3, padding=1, groups=values)
        self.project = nn.Linear(values, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels),
            nn.Hardswish(),
            nn.Linear(mlp_ratio * channels, channels),
        )
        table = 0.5 * torch.randn(self.heads, size, size)
        token = torch.arange(size * size)
        rows, columns = (
            (axis[:, None] - axis[None, :]).abs() for axis in (token // size, token % size)
        )
        self.register_buffer("bias", table[:, rows, columns][None])  # [1, heads, T, T]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).split(self.widths, dim=2)
        v = self.local(_map(v, self.size)).flatten(2).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            _heads(q, self.heads), _heads(k, self.heads), _heads(v, self.heads), self.bias
        )
        x = x + self.project(F.hardswish(_tokens(attended)))
        return x + self.mlp(self.mlp_norm(x))


class HybridStage(nn.Module):
    """An MBConv that may shrink the map, then transformer blocks: [1, I, R, R] -> [1, C, H, H]."""

    def __init__(self, inputs: int, channels: int, size: int, stride: int, depth: int) -> None:
        super().__init__()
        self.size = size
        self.entry = MBConv(inputs, 3, 6 * inputs, channels, True, nn.Hardswish, stride)
        self.blocks = nn.Sequential(*(HybridBlock(channels, size, 2, 3) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.entry(x).flatten(2).transpose(1, 2))
        return _map(x, self.size)


class Hybrid(nn.Module):
    """[1, 3, 160, 160] -> [1, 1000]: convolution stages, then transformer stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 24, 3, 2), nn.Hardswish())
        self.convolutions = nn.Sequential(
            MBConv(24, 3, 96, 24, False, nn.Hardswish, 2),
            MBConv(24, 3, 96, 24, False, nn.Hardswish, 1),
            MBConv(24, 5, 96, 40, True, nn.Hardswish, 2),
            MBConv(40, 5, 160, 40, True, nn.Hardswish, 1),
        )
        self.transformers = nn.Sequential(
            HybridStage(40, 64, 10, 2, 2),
            HybridStage(64, 112, 10, 1, 3),
            HybridStage(112, 176, 5, 2, 3),
            HybridStage(176, 240, 3, 2, 2),
        )
        self.last = nn.Sequential(*_conv(240, 1440, 1), nn.Hardswish())
        self.classifier = nn.Sequential(
            nn.Linear(1440, 1984), nn.Hardswish(), nn.Linear(1984, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.transformers(self.convolutions(self.stem(x))))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class RMSNorm(nn.Module):
    """x / rms(x) times a gain, over the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [1, heads, T, D], the halves of D rotated against each other."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class LlamaBlock(nn.Module):
    """Causal grouped-query attention and SwiGLU over [1, T, C]."""

    def __init__(self, channels: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        kv = channels // heads * kv_heads
        self.attention_norm, self.mlp_norm = RMSNorm(channels), RMSNorm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, kv, bias=False)
        self.v = nn.Linear(channels, kv, bias=False)
        self.o = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Linear(channels, hidden, bias=False)
        self.up = nn.Linear(channels, hidden, bias=False)
        self.down = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.attention_norm(x)
        q = _rotate(_heads(self.q(y), self.heads), cos, sin)
        k = _rotate(_heads(self.k(y), self.kv_heads), cos, sin)
        v = _heads(self.v(y), self.kv_heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(_tokens(attended))
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Prefill: int64 tokens [1, 128] -> logits [1, 128, 4096]; 4 layers of 512."""

    def __init__(self, tokens: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 512)
        self.blocks = nn.ModuleList(LlamaBlock(512, 8, 2, 1408) for _ in range(4))
        self.norm = RMSNorm(512)
        self.head = nn.Linear(512, VOCABULARY, bias=False)
        frequencies = 10000 ** (-torch.arange(0, 64, 2) / 64)
        angles = torch.outer(torch.arange(tokens), frequencies).repeat(1, 2)  # [T, D]
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


@dataclass(frozen=True, slots=True)
class StockNet:
    """How to make one network, and what it reads.

    Attributes:
        build: Its class.
        input_shape: `[1, 3, R, R]` float32 images, or `[1, T]` int64 tokens.
    """

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]

    def sample(self, seed: int) -> Tensor:
        """One input: normally distributed pixels, or tokens."""
        generator = torch.Generator().manual_seed(seed)
        if len(self.input_shape) == 2:
            return torch.randint(0, VOCABULARY, self.input_shape, generator=generator)
        return torch.randn(self.input_shape, generator=generator)

    def module(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, the same for the same seed."""
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            module = self.build().requires_grad_(False)
            norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
            for norm in norms:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.2)
                norm.momentum = None  # an average over all calibration inputs
            if norms:
                module.train()(torch.cat([self.sample(seed + index) for index in range(8)]))
        return module.eval()


STOCK_NETS = {
    "mobilenetv3": StockNet(MobileNetV3Small, (1, 3, 224, 224)),
    "resnet18": StockNet(ResNet18, (1, 3, 224, 224)),
    "vit": StockNet(ViTTiny, (1, 3, 224, 224)),
    "hybrid": StockNet(Hybrid, (1, 3, 160, 160)),
    "llama": StockNet(Llama, (1, 128)),
}
"""The networks by the names that figures and options use."""
