"""Supernet: one parameter store that becomes any config of its search space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from spaces.config import Config
from spaces.dimension import Choice, DimensionKind
from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import QuantScheme
from spaces.space import SearchSpace
from supernet.distributed import SingleWorld, World
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.elastic.options import LayerOptions
from supernet.extract import Subnet, subnet_from_tensors
from supernet.quantizers import PER_FORM, QUANTIZERS, FakeQuantizer
from supernet.shared_prefix import SharedPrefix

PRECISION_KINDS = (
    DimensionKind.W_BITS,
    DimensionKind.A_BITS,
    DimensionKind.GRANULARITY,
    DimensionKind.SYMMETRY,
)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that must keep one order in every layer that writes or reads them.

    Attributes:
        name: The dimension or site that they belong to.
        writers: Convolutions whose output channels they are.
        readers: Layers whose input channels they are.
        gates: Layers that scale them one by one: squeeze-and-excite, LayerNorm.
        normed: Readers with that LayerNorm of `gates` through which each reads them.
    """

    name: str
    writers: tuple[ElasticConvLayer, ...]
    readers: tuple[ElasticLayer, ...]
    gates: tuple[ElasticLayer, ...] = ()
    normed: tuple[tuple[ElasticLayer, ElasticLayerNorm], ...] = ()


class Supernet(nn.Module):
    """Base of every family's supernet.

    A subclass builds its elastic layers from `layer_options(space)` and implements `layers`,
    `channel_groups`, `activate_specs` and `forward`.

    Args:
        space: Its largest config sizes the store.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        self.active: Config = space.max_config()
        self.quantizer = PER_FORM

    def use_quantizer(self, name: str) -> None:
        """Replace every quantiser by a fresh one of the kind `name`, which `quantizer` then names.

        Raises:
            UnknownNameError: No kind of quantiser has this name.
            SupernetConfigError: It cannot have a scheme of the space.
        """
        kind = QUANTIZERS.get(name)
        for module in list(self.modules()):
            for child_name, child in list(module.named_children()):
                if isinstance(child, FakeQuantizer):
                    module.add_module(child_name, kind(child.schemes, child.shape))
        self.quantizer = name

    @abstractmethod
    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution, for the whole store."""

    @abstractmethod
    def channel_groups(self) -> list[ChannelGroup]:
        """Groups of channels that `supernet.importance` may reorder."""

    @abstractmethod
    def activate_specs(self, specs: Mapping[str, LayerSpec]) -> None:
        """Become the subnet with these layers (site -> spec)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """float32 images [N, C, R, R] at the active resolution -> logits [N, classes]."""

    def activate(self, config: Config) -> None:
        """Become `config`, of this space or of a restriction of it. Changes views, copies nothing.

        Raises:
            SupernetConfigError: A layer of the config is not a part of the store.
        """
        self.activate_specs({s.site: s for s in config.space.layer_specs(config)})
        self.active = config

    @property
    def resolution(self) -> int:
        """Height and width of the active subnet's input, in pixels."""
        return int(self.active["resolution"])

    def extract(self, config: Config) -> Subnet:
        """A copy of a subnet as a plain module, with BatchNorm folded in. Activates `config`.

        BatchNorm statistics are those that the store holds: recalibrate them for this config
        first, or call `supernet.prepare`, which does both.
        """
        self.activate(config)
        specs = config.space.layer_specs(config)
        layers = self.layers()
        tensors = {
            f"{spec.site}.{name}": tensor
            for spec in specs
            if spec.site in layers
            for name, tensor in layers[spec.site].export().items()
        }
        return subnet_from_tensors(specs, tensors)

    def norms(self) -> Iterator[ElasticBatchNorm2d]:
        """All normalisation layers."""
        return (m for m in self.modules() if isinstance(m, ElasticBatchNorm2d))

    @contextmanager
    def shared_batches(self, world: World) -> Iterator[None]:
        """Within it, what each worker of `world` passes in training mode is a part of one batch:
        BatchNorm's statistics are those of the whole."""
        if world.size == 1:
            yield
            return
        for norm in self.norms():
            norm.world = world
        try:
            yield
        finally:
            for norm in self.norms():
                norm.world = SingleWorld()

    @contextmanager
    def shared_prefix(self) -> Iterator[SharedPrefix]:
        """Within it, subnets that read the same tensors, which the prefix must be told of, share
        what their first layers compute alike; call its `backward` after all of theirs."""
        prefix = SharedPrefix()
        layers = [layer for layer in self.layers().values() if isinstance(layer, ElasticConvLayer)]
        for layer in layers:
            layer.prefix = prefix
        try:
            yield prefix
        finally:
            for layer in layers:
                layer.prefix = None

    @contextmanager
    def _observing(self) -> Iterator[None]:
        layers = self.layers().values()
        for layer in layers:
            layer.observed = []
        try:
            yield
        finally:
            for layer in layers:
                layer.calibrate_input()

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Config, Tensor]]) -> None:
        """Set every quantiser: weights from the store, inputs from what these batches cause.

        Args:
            batches: Configs, with images [N, C, R, R] at their resolution.
        """
        for layer in self.layers().values():
            layer.calibrate_weights()
        was_training = self.training
        self.train()
        with self._observing():
            for config, images in batches:
                self.activate(config)
                self(images)
        self.train(was_training)

    def quantizer_parameters(self) -> list[nn.Parameter]:
        """Learned scales and zero points."""
        return [p for n, p in self.named_parameters() if _is_quantizer(n)]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything that is not a scale or zero point."""
        return [p for n, p in self.named_parameters() if not _is_quantizer(n)]


def _is_quantizer(name: str) -> bool:
    return ".log_scale." in name or ".zero_point." in name


def layer_options(space: SearchSpace) -> dict[str, LayerOptions]:
    """Site -> what the store must hold there, read off the space's own LayerSpecs.

    Channels come from the largest config; kernels and precisions from stepping all dimensions of
    one kind through their choices together, for every combination of kinds.
    """
    largest = space.max_config()
    kernels = _collect(space, (DimensionKind.KERNEL,))
    precisions = _collect(space, PRECISION_KINDS)
    options = {}
    for spec in space.layer_specs(largest):
        seen = [s.precision for s in precisions[spec.site]]
        options[spec.site] = LayerOptions(
            largest=spec,
            kernels=tuple(sorted({s.kernel for s in kernels[spec.site]})),
            weight_schemes=_schemes(p.weight for p in seen),
            activation_schemes=_schemes(p.activation for p in seen),
        )
    return options


def _schemes(found: Iterable[QuantScheme | None]) -> tuple[QuantScheme, ...]:
    return tuple(sorted({s for s in found if s is not None}, key=lambda s: s.key))


def _collect(space: SearchSpace, kinds: Sequence[DimensionKind]) -> dict[str, list[LayerSpec]]:
    varied = [d for d in space.dimensions if d.kind in kinds]
    steps = [range(max((len(d.choices) for d in varied if d.kind is k), default=1)) for k in kinds]
    found: dict[str, list[LayerSpec]] = {}
    for combination in product(*steps):
        step = dict(zip(kinds, combination, strict=True))
        values: dict[str, Choice] = dict(space.max_config())
        values |= {d.name: d.choices[min(step[d.kind], len(d.choices) - 1)] for d in varied}
        for spec in space.layer_specs(space.config(values)):
            found.setdefault(spec.site, []).append(spec)
    return found
