"""Plain layers of an extracted subnet; none of them knows elasticity or training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.cost import tensor_layout
from spaces.layer_spec import LAYER_NORM_EPSILON, LayerSpec, Operator
from spaces.quant_scheme import FP32, QuantScheme
from supernet import grouped_ops, integer_ops
from supernet.attention import attend, position_bias


class InputQuantizer(nn.Module):
    """A layer that reads integers: holds the scale and zero point of its input."""

    input_scale: Tensor
    input_zero_point: Tensor

    def register_input(self, scheme: QuantScheme) -> None:
        """Add `input_scale` float32 [] and `input_zero_point` int32 []."""
        self.input_range = (scheme.qmin, scheme.qmax)
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int32))

    def quantize(self, x: Tensor) -> Tensor:
        """float32 -> u8, or s8 where the input's integers have signs; any shape."""
        return integer_ops.quantize(x, self.input_scale, self.input_zero_point, *self.input_range)

    def dequantize(self, x: Tensor) -> Tensor:
        """u8 or s8 -> float32, any shape."""
        return integer_ops.dequantize(x, self.input_scale, self.input_zero_point)


class QuantizedWeight(InputQuantizer):
    """A layer with integer weights, kept as they are stored: packed when narrower than 8 bits."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    weight_zero_point: Tensor | None

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        scheme = spec.precision.weight
        assert scheme is not None, spec
        self.bits, self.shape, self.group_size = scheme.bits, spec.weight_shape, scheme.group_size
        self.register_buffer("weight_zero_point", None)
        for name, (dtype, shape) in tensor_layout(spec).items():
            role = name.removeprefix(f"{spec.site}.")
            if role in ("weight", "bias", "scale", "weight_zero_point"):
                self.register_buffer(role, torch.zeros(shape, dtype=getattr(torch, dtype)))

    def codes(self) -> Tensor:
        """The integers, int8 [O, ...]."""
        if self.bits == 8:
            return self.weight
        return integer_ops.unpack(self.weight, self.bits, list(self.shape))


class FloatConv2d(InputQuantizer):
    """Convolution with bias."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        shape = (spec.out_channels, spec.in_channels // spec.groups, spec.kernel, spec.kernel)
        self.weight = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(spec.out_channels), requires_grad=False)
        self.stride, self.padding, self.groups = spec.stride, spec.padding, spec.groups

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I, H, W] -> [N, O, H', W']."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


class IntegerConv2d(QuantizedWeight):
    """Convolution of integers with exact accumulation and a float32 output."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.stride, self.padding, self.groups = spec.stride, spec.padding, spec.groups

    def forward(self, x: Tensor) -> Tensor:
        """u8 or s8 [N, I, H, W] -> float32 [N, O, H', W']."""
        operands = (x, self.input_zero_point, self.codes(), self.bias, self.scale)
        geometry = (self.stride, self.padding, self.groups)
        weight = (self.bits, self.weight_zero_point)
        if self.group_size is None:
            return integer_ops.qconv2d(*operands, *geometry, *weight)
        return grouped_ops.qconv2d_grouped(*operands, self.group_size, *geometry, *weight)


class FloatLinear(InputQuantizer):
    """Linear layer with bias."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        shape = (spec.out_channels, spec.in_channels)
        self.weight = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(spec.out_channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I] -> [N, O]."""
        return F.linear(x, self.weight, self.bias)


class IntegerLinear(QuantizedWeight):
    """Matrix product of integers with exact accumulation and a float32 output."""

    def forward(self, x: Tensor) -> Tensor:
        """u8 or s8 [N, I] -> float32 [N, O]."""
        operands = (x, self.input_zero_point, self.codes(), self.bias, self.scale)
        weight = (self.bits, self.weight_zero_point)
        if self.group_size is None:
            return integer_ops.qlinear(*operands, *weight)
        return grouped_ops.qlinear_grouped(*operands, self.group_size, *weight)


class WeightOnlyLinear(QuantizedWeight):
    """Linear layer in float32 whose weights are integers with one scale per group of inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I] -> [N, O]."""
        assert self.group_size is not None
        operands = (x, self.codes(), self.bias, self.scale, self.group_size)
        return integer_ops.weight_only_linear(*operands, self.bits, self.weight_zero_point)


class SqueezeExcite(InputQuantizer):
    """x * hardsigmoid(expand(relu(reduce(mean(x))))), float32 inside."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        channels, hidden = spec.out_channels, spec.hidden_channels
        self.reduce = nn.Linear(channels, hidden).requires_grad_(False)
        self.expand = nn.Linear(hidden, channels).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> the same shape."""
        hidden = F.relu(self.reduce(x.mean((2, 3))))  # [N, D]
        return x * F.hardsigmoid(self.expand(hidden))[:, :, None, None]


class MaxPool(InputQuantizer):
    """Maximum over a window."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = spec.kernel, spec.stride, spec.padding

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> [N, C, H', W']."""
        return F.max_pool2d(x, self.kernel, self.stride, self.padding)


class GlobalPool(InputQuantizer):
    """Mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> [N, C]."""
        return x.mean((2, 3))


class LayerNorm(InputQuantizer):
    """Normalisation over the channels of each pixel."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(spec.out_channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(spec.out_channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> the same shape."""
        pixels, shape = x.permute(0, 2, 3, 1), self.weight.shape
        out = F.layer_norm(pixels, shape, self.weight, self.bias, LAYER_NORM_EPSILON)
        return out.permute(0, 3, 1, 2)


class PositionBias(nn.Module):
    """Biases of attention by distance, [heads, R, R]."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(heads, size, size), requires_grad=False)

    def forward(self) -> Tensor:
        """float32 [heads, R * R, R * R]."""
        return position_bias(self.bias)


class Attention(InputQuantizer):
    """Multi-head attention over the pixels of a map, in float32; see `Operator.ATTENTION`."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.heads, self.values = spec.heads, spec.out_channels
        self.queries = (spec.in_channels - spec.out_channels) // 2
        window = (spec.kernel, 1, spec.padding)
        self.depthwise = nn.Conv2d(self.values, self.values, *window, groups=self.values)
        self.position = PositionBias(spec.heads, spec.in_size)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, queries, keys and values, R, R] -> [N, values, R, R]."""
        n, _, height, width = x.shape
        q, k, v = torch.split(x, [self.queries, self.queries, self.values], dim=1)
        q, k, v = (
            part.reshape(n, self.heads, -1, height * width).transpose(2, 3)  # [N, heads, T, d]
            for part in (q, k, self.depthwise(v))
        )
        out = attend(q, k, v, self.position())
        return out.transpose(2, 3).reshape(n, self.values, height, width)


def build_layer(spec: LayerSpec) -> InputQuantizer:
    """The module that executes `spec`, with zero weights where it has no others.

    Raises:
        ValueError: Integer weights on a float32 input where nothing executes them: a linear layer
            may have them, with one scale per group of inputs. Or attention or LayerNorm that is
            not in float32.
    """
    integer, weight_only = spec.precision.integer, spec.precision.weight_only
    grouped = spec.precision.weight is not None and spec.precision.weight.group_size is not None
    if weight_only and not (grouped and spec.operator is Operator.LINEAR):
        raise ValueError(
            f"{spec.site}: {spec.operator} in {spec.precision.name}: integer weights need a "
            "quantised input, or a linear layer and one scale per group of inputs"
        )
    if spec.operator in (Operator.ATTENTION, Operator.LAYER_NORM) and spec.precision != FP32:
        raise ValueError(f"{spec.site}: {spec.operator} in {spec.precision.name}; allowed: fp32")
    layer: InputQuantizer
    match spec.operator:
        case Operator.CONV | Operator.DEPTHWISE_CONV:
            layer = IntegerConv2d(spec) if integer else FloatConv2d(spec)
        case Operator.LINEAR:
            if weight_only:
                layer = WeightOnlyLinear(spec)
            else:
                layer = IntegerLinear(spec) if integer else FloatLinear(spec)
        case Operator.SQUEEZE_EXCITE:
            layer = SqueezeExcite(spec)
        case Operator.MAX_POOL:
            layer = MaxPool(spec)
        case Operator.GLOBAL_POOL:
            layer = GlobalPool()
        case Operator.ATTENTION:
            layer = Attention(spec)
        case Operator.LAYER_NORM:
            layer = LayerNorm(spec)
    if spec.precision.activation is not None:
        layer.register_input(spec.precision.activation)
    return layer
