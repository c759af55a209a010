"""Elastic layers: an operator with the quantisation of its input and what follows it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import QuantScheme
from supernet.activations import apply_activation
from supernet.elastic.affine import ElasticAffine, ElasticBias
from supernet.elastic.conv import ElasticConv2d
from supernet.elastic.linear import ElasticLinear
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.elastic.options import LayerOptions
from supernet.elastic.squeeze_excite import ElasticSqueezeExcite
from supernet.elastic.switched import SwitchedModule
from supernet.folding import fold_float, fold_quantised
from supernet.packing import pack_codes
from supernet.quantizers import FakeQuantizer, IntegerTensor, PerFormQuantizer
from supernet.shared_prefix import SharedPrefix

_OBSERVED_ELEMENTS = 32768


class ElasticLayer(SwitchedModule):
    """One site of a supernet: becomes any LayerSpec that fits its options.

    `forward` is `compute(quantize_input(x))`; a block calls the halves itself, because its
    shortcut carries the quantised input.

    Args:
        options: What the site must be able to become.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.options = options
        self.spec = options.largest
        self.input_quantizer: FakeQuantizer = PerFormQuantizer(options.activation_schemes, None)
        self.observed: list[Tensor] | None = None

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`: changes views, copies no weight.

        Raises:
            SupernetConfigError: The store has no such part.
        """
        self.options.check(spec)
        self.spec = spec

    def quantize_input(self, x: Tensor) -> Tensor:
        """`x`, fake-quantised when the active precision says so; while values are observed for
        calibration, `x` itself."""
        if self.observed is not None:
            flat = x.detach().flatten()
            # Random places: a regular stride would see the same columns of every map.
            places = torch.Generator().manual_seed(len(self.observed))
            chosen = torch.randint(len(flat), (_OBSERVED_ELEMENTS,), generator=places)
            self.observed.append(flat[chosen])
            return x
        scheme = self.spec.precision.activation
        if scheme is None:
            return x
        # Under autocast `x` may be bfloat16, whose 8 bits of significand cannot hold the codes.
        out: Tensor = self.input_quantizer(x.float(), scheme)
        return out

    def calibrate_input(self) -> None:
        """Set the input's scales from the values observed so far, and stop observing."""
        if self.observed:
            values = torch.cat(self.observed)
            for scheme in self.options.activation_schemes:
                self.input_quantizer.calibrate(values, scheme)
        self.observed = None

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """The layer on its (already quantised) input."""

    @abstractmethod
    def calibrate_weights(self) -> None:
        """Set the weight's scales from the whole weight."""

    @abstractmethod
    def export_weights(self) -> dict[str, Tensor]:
        """Detached copies of the active tensors, named as in `spaces.cost.tensor_layout`; integers
        are not packed yet."""

    def export(self) -> dict[str, Tensor]:
        """The tensors of `spaces.cost.tensor_layout`: `export_weights`, integers of fewer than 8
        bits packed, and for a quantised input `input_scale` and `input_zero_point`."""
        tensors = self.export_weights()
        weight = self.spec.precision.weight
        if weight is not None and weight.bits < 8:
            tensors["weight"] = pack_codes(tensors["weight"], weight.bits)
        scheme = self.spec.precision.activation
        if scheme is not None:
            constants = self._input_constants(scheme)
            tensors["input_scale"] = constants.scale
            tensors["input_zero_point"] = constants.zero_point
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def forward(self, x: Tensor) -> Tensor:
        """`compute(quantize_input(x))`."""
        return self.compute(self.quantize_input(x))

    def _input_scale(self) -> Tensor:
        """float32 []; 1 for a float32 input."""
        scheme = self.spec.precision.activation
        if scheme is None:
            return torch.ones(())
        return self._input_constants(scheme).scale

    def _input_constants(self, scheme: QuantScheme) -> IntegerTensor:
        """Scale and zero point of the input, as the integers of a single value."""
        # A tensor without axes may meet parameters on any device.
        return self.input_quantizer.export_int(torch.zeros(()), scheme)


class ElasticConvLayer(ElasticLayer):
    """Convolution, BatchNorm or a bias, activation.

    Args:
        options: What the site must be able to become.
        conv: Its convolution; by default one over prefixes of its channels.
        norm: Its normalisation, or the bias in place of one; by default BatchNorm, likewise.

    Attributes:
        prefix: What the subnets of a step share; see `Supernet.shared_prefix`.
    """

    def __init__(
        self,
        options: LayerOptions,
        conv: ElasticConv2d | None = None,
        norm: ElasticAffine | None = None,
    ) -> None:
        super().__init__(options)
        self.conv = ElasticConv2d(options) if conv is None else conv
        self.norm = ElasticBatchNorm2d(options.largest.out_channels) if norm is None else norm
        self.prefix: SharedPrefix | None = None
        self._is_plain = conv is None and type(self.norm) in (ElasticBatchNorm2d, ElasticBias)

    def activate(self, spec: LayerSpec) -> None:
        super().activate(spec)
        self.conv.activate(spec)
        self.norm.activate(spec.out_channels)

    def compute(self, x: Tensor) -> Tensor:
        """float32 [N, I, H, W] -> [N, O, H', W']."""
        if self.prefix is None:
            return self._compute(x)
        # The gradient of a scale depends on how many values it has.
        by_channel = self._is_plain and self.spec.precision.weight is None
        return self.prefix.output(self.spec, x, by_channel, self._compute)

    def add_shortcut(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """The end of a residual block whose last layer this is.

        Args:
            x: What this layer computed, float32 [N, O, H', W'].
            shortcut: Of the same shape.

        Returns:
            Their sum after the block's activation, of the same shape.
        """
        activation = self.spec.residual_activation
        if self.prefix is None:
            return apply_activation(x + shortcut, activation)
        return self.prefix.sum(x, shortcut, activation)

    def _compute(self, x: Tensor) -> Tensor:
        # BatchNorm needs its input for its gradient, not its output; a bias needs neither.
        return apply_activation(self.norm(self.conv(x)), self.spec.activation, inplace=True)

    def calibrate_weights(self) -> None:
        self.conv.calibrate_weights()

    @torch.no_grad()
    def export_weights(self) -> dict[str, Tensor]:
        multiplier, offset = self.norm.affine()
        scheme = self.spec.precision.weight
        if scheme is None:
            return fold_float(self.conv.float_weight(), multiplier, offset)
        codes = self.conv.export_int()
        return fold_quantised(codes, scheme, self._input_scale(), multiplier, offset)

    def begin_at_zero(self) -> None:
        """Let a fresh layer write zeros: by gammas of zero (LeViT, Graham et al. 2021), or without
        BatchNorm by weights of zero (Zhang et al. 2019, "Fixup Initialization")."""
        if isinstance(self.norm, ElasticBatchNorm2d):
            nn.init.zeros_(self.norm.weight)
        else:
            nn.init.zeros_(self.conv.weight)


class ElasticLinearLayer(ElasticLayer):
    """Linear layer with bias."""

    def __init__(self, options: LayerOptions) -> None:
        super().__init__(options)
        self.linear = ElasticLinear(options)

    def activate(self, spec: LayerSpec) -> None:
        super().activate(spec)
        self.linear.activate(spec)

    def compute(self, x: Tensor) -> Tensor:
        """float32 [N, I] -> [N, O]."""
        return apply_activation(self.linear(x), self.spec.activation)

    def calibrate_weights(self) -> None:
        self.linear.calibrate_weights()

    @torch.no_grad()
    def export_weights(self) -> dict[str, Tensor]:
        bias = self.linear.bias_view()
        one = torch.ones_like(bias)
        scheme = self.spec.precision.weight
        if scheme is None:
            return fold_float(self.linear.weight_view(), one, bias)
        return fold_quantised(self.linear.export_int(), scheme, self._input_scale(), one, bias)


class ElasticSqueezeExciteLayer(ElasticLayer):
    """Squeeze-and-excite with float32 weights."""

    def __init__(self, options: LayerOptions) -> None:
        super().__init__(options)
        self.squeeze_excite = ElasticSqueezeExcite(options)

    def activate(self, spec: LayerSpec) -> None:
        super().activate(spec)
        self.squeeze_excite.activate(spec)

    def compute(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> the same shape."""
        out: Tensor = self.squeeze_excite(x)
        return out

    def calibrate_weights(self) -> None:
        """Nothing to do: the weights are float32 in every precision."""

    def export_weights(self) -> dict[str, Tensor]:
        names = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        views = self.squeeze_excite.views()
        return {n: v.detach().clone() for n, v in zip(names, views, strict=True)}
