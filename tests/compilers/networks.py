"""Tiny networks of five families, with random weights: what the lowering has to carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet import integer_ops


class Excite(nn.Module):
    """Squeeze-and-excite of 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(hidden))


class MBConv(nn.Module):
    """Inverted residual with batch normalisation."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.Hardswish(inplace=True), Excite(wide),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.blocks = nn.Sequential(MBConv(8, 16, 2), MBConv(16, 16, 1))
        self.head = nn.Sequential(nn.Linear(16, 24), nn.Hardswish(), nn.Dropout(), nn.Linear(24, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1)
        return self.head(torch.flatten(x, 1))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(i, outputs, 3, s, 1, bias=False), nn.BatchNorm2d(outputs))
            for i, s in ((inputs, stride), (outputs, 1))
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        ) if stride > 1 else nn.Identity()  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x)))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.blocks = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 24, 2))
        self.pool, self.head = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class ViTBlock(nn.Module):
    """Pre-norm; queries, keys and values of one layer, or of three."""

    def __init__(self, channels: int, heads: int, packed: bool) -> None:
        super().__init__()
        self.heads, self.packed = heads, packed
        self.norms = nn.ModuleList([nn.LayerNorm(channels), nn.LayerNorm(channels)])
        if packed:
            self.qkv = nn.Linear(channels, 3 * channels)
        else:
            self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.project = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        y = self.norms[0](x)
        if self.packed:
            parts = self.qkv(y).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = parts.unbind(0)
        else:
            q, k, v = (
                layer(y).view(b, t, self.heads, -1).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)
        x = x + self.project(y)
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.positions = nn.Parameter(torch.randn(1, 17, 24))
        self.blocks = nn.Sequential(ViTBlock(24, 3, True), ViTBlock(24, 3, False))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class HybridBlock(nn.Module):
    """Wider values, a relative position bias, batch normalisation of tokens."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.heads, self.size, self.channels = 2, size, channels
        self.qkv = nn.Linear(channels, 4 * channels, bias=False)
        self.batch_norm = nn.BatchNorm1d(4 * channels)
        self.local = nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1, groups=2 * channels)
        self.project = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Linear(channels, channels)
        self.table = nn.Parameter(torch.randn(self.heads, size * size))
        token = torch.arange(size * size)
        self.register_buffer("places", (token[:, None] - token[None, :]).abs())

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        y = self.batch_norm(self.qkv(x).flatten(0, 1)).view(b, t, 4 * c)
        q, k, v = torch.split(y, [c, c, 2 * c], dim=-1)
        v = v.transpose(1, 2).reshape(b, 2 * c, self.size, self.size)
        v = self.local(v).flatten(2).transpose(1, 2)
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.table[:, self.places])
        x = x + self.project(F.hardswish(y.transpose(1, 2).reshape(b, t, 2 * c)))
        return x + 0.5 * self.mlp(self.norm(x))


class Hybrid(nn.Module):
    """Convolutions, then transformers on the flattened map, and the mean over tokens or pixels."""

    def __init__(self, pooled_map: bool) -> None:
        super().__init__()
        self.pooled_map = pooled_map
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish())
        self.entry = MBConv(8, 16, 2)
        self.blocks = nn.Sequential(HybridBlock(16, 4), HybridBlock(16, 4))
        self.last = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24))
        self.head = nn.Linear(24 if pooled_map else 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.entry(self.stem(x)).flatten(2).transpose(1, 2))
        if self.pooled_map:
            x = F.hardswish(self.last(x.transpose(1, 2).reshape(1, 16, 4, 4)))
            return self.head(x.mean((2, 3)))
        return self.head(x.mean(1))


class HandwrittenRMSNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


def rotate_half(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class LlamaBlock(nn.Module):
    """Four query heads on two of keys; `shared` says how they share them."""

    def __init__(self, channels: int, shared: str, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.shared = shared
        self.norms = nn.ModuleList([norm(channels), norm(channels)])
        self.q, self.o = nn.Linear(channels, 64, bias=False), nn.Linear(64, channels, bias=False)
        self.k, self.v = (nn.Linear(channels, 32, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(channels, 40, bias=False) for _ in range(2))
        self.down = nn.Linear(40, channels, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        y = self.norms[0](x)
        q, k, v = (
            layer(y).view(b, t, -1, 16).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        q, k = (z * cos + rotate_half(z) * sin for z in (q, k))
        grouped = self.shared == "enable_gqa"
        if self.shared == "repeat_interleave":
            k, v = (z.repeat_interleave(2, dim=1) for z in (k, v))
        elif self.shared == "expand":
            k, v = (z[:, :, None].expand(b, 2, 2, t, 16).reshape(b, 4, t, 16) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        x = x + self.o(y.transpose(1, 2).contiguous().view(b, t, -1))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, *shared: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        norms: list[Callable[[int], nn.Module]] = [HandwrittenRMSNorm, nn.RMSNorm]
        self.blocks = nn.ModuleList(
            LlamaBlock(32, how, norms[i % 2]) for i, how in enumerate(shared)
        )
        self.norm, self.head = nn.RMSNorm(32, eps=1e-5), nn.Linear(32, 50, bias=False)
        frequencies = 100 ** (-torch.arange(0, 16, 2) / 16)
        self.register_buffer("frequencies", frequencies)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = (f(angles)[None, None] for f in (torch.cos, torch.sin))
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


@dataclass(frozen=True)
class Network:
    """How to make a network, and its input."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    input_dtype: str = "float32"

    def module(self) -> nn.Module:
        """The network, normalised by statistics that are not those of a fresh module."""
        torch.manual_seed(0)
        module = self.build().requires_grad_(False).eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (part.weight, part.running_var):
                    tensor.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                for tensor in (part.bias, part.running_mean):
                    tensor.normal_(0, 0.3)  # type: ignore[union-attr]
        return module

    def sample(self) -> Tensor:
        """One input."""
        generator = torch.Generator().manual_seed(1)
        if self.input_dtype == "int64":
            return torch.randint(0, 50, self.input_shape, generator=generator)
        return torch.randn(self.input_shape, generator=generator)


class IntegerLayer(nn.Module):
    """A linear layer or convolution in integers, its input quantised to the range that it had."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, x: Tensor) -> None:
        super().__init__()
        low, high = x.min().clamp(max=0), x.max().clamp(min=0)
        scale = (high - low) / 255
        weight = layer.weight.detach()
        axes = tuple(range(1, weight.dim()))
        steps = weight.abs().amax(axes) / 127
        codes = weight / steps.view(-1, *[1] * len(axes))
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.round(-low / scale).int())
        self.register_buffer("weight", torch.round(codes).to(torch.int8))
        self.register_buffer("factor", steps * scale)
        self.register_buffer("bias", torch.round(bias / (steps * scale)).int())
        self.geometry = (
            (layer.stride[0], layer.padding[0], layer.groups)
            if isinstance(layer, nn.Conv2d)
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        q = integer_ops.quantize(x, self.scale, self.zero)
        constants = (self.zero, self.weight, self.bias, self.factor)
        if self.geometry is None:
            return integer_ops.qlinear(q, *constants)
        return integer_ops.qconv2d(q, *constants, *self.geometry)


def in_integers(module: nn.Module, x: Tensor) -> nn.Module:
    """`module` with its layers in integers."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, given, __, name=name: inputs.__setitem__(name, given[0])
        )
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    for name, given in inputs.items():
        parent, _, child = name.rpartition(".")
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(module.get_submodule(parent), child, IntegerLayer(layer, given))
    return module.eval()


class Pooled(nn.Module):
    """A maximum between two integer convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 1, 1)
        self.second, self.head = nn.Conv2d(24, 16, 3, 1, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)))
        x = F.relu(self.second(F.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


NETWORKS = {
    "mobilenet": Network(MobileNet, (1, 3, 16, 16)),
    "resnet": Network(ResNet, (1, 3, 24, 24)),
    "vit": Network(ViT, (1, 3, 16, 16)),
    "hybrid": Network(lambda: Hybrid(pooled_map=False), (1, 3, 16, 16)),
    "hybrid_map": Network(lambda: Hybrid(pooled_map=True), (1, 3, 16, 16)),
    "llama": Network(lambda: Llama("enable_gqa", "repeat_interleave", "expand"), (1, 9), "int64"),
    "pooled": Network(Pooled, (1, 3, 24, 24)),
}
