"""What the subnets of a training step compute alike is computed, and differentiated, once.

All configs of a step see the same images, so their subnets agree up to the first layer in which
they differ: mostly the stem and, as a subnet's channels are the first ones of the store, a part of
the first block. For small images these are the largest maps of the network. Once-for-all and its
successors compute them anew for every subnet; gradients are linear, so one backward pass with
their sum gives the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spaces.layer_spec import Activation, LayerSpec, Operator
from supernet.activations import apply_activation


@dataclass(frozen=True, slots=True)
class _Result:
    """An output that was computed, and the leaves that subnets read in its place: all of it, and
    its first channels by their number."""

    output: Tensor
    leaf: Tensor
    parts: dict[int, Tensor] = field(default_factory=dict)

    def part(self, channels: int) -> Tensor:
        """The first channels, channels-last."""
        if channels not in self.parts:
            part = self.leaf.detach()[:, :channels]
            # Through a view of the leaf the gradient would be padded to all channels.
            part = part.contiguous(memory_format=torch.channels_last)
            self.parts[channels] = part.requires_grad_(self.leaf.requires_grad)
        return self.parts[channels]

    def gradient(self) -> Tensor | None:
        """The sum of what the leaves have received."""
        total = self.leaf.grad
        for channels, part in self.parts.items():
            if part.grad is not None:
                total = torch.zeros_like(self.leaf) if total is None else total
                total[:, :channels] += part.grad
        return total


class SharedPrefix:
    """What several subnets computed from the same tensors by layers alike.

    Valid as long as no weight changes. A tensor is shared when `share` was told of it, or when it
    is what a layer computed from a shared one; all others pass through their layers as ever.

    Attributes:
        keeps: Whether outputs are kept for later subnets; the last one has none.
    """

    def __init__(self) -> None:
        self.keeps = True
        # By identity, for which the tensors must stay alive.
        self._shared: dict[int, Tensor] = {}
        self._whole: dict[int, Tensor] = {}
        self._results: dict[tuple[str, int], list[tuple[LayerSpec, _Result]]] = {}
        self._sums: dict[tuple[Activation, int, int], _Result] = {}
        self._order: list[_Result] = []

    def share(self, x: Tensor) -> None:
        """Several subnets will read `x`, this very tensor."""
        self._shared[id(x)] = x

    def output(
        self, spec: LayerSpec, x: Tensor, by_channel: bool, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`compute(x)`, or what it returned for a spec alike.

        Args:
            spec: What the layer is now.
            x: Its input.
            by_channel: Whether an output channel depends on no other one, so that fewer of them
                are a part of more.
            compute: The layer.

        Returns:
            Where `x` is shared, a channels-last tensor without a history, which `backward` knows.
        """
        if id(x) not in self._shared:
            return compute(x)
        known = self._results.setdefault((spec.site, id(x)), [])
        for other, result in known:
            if other == spec:
                return result.leaf
            if by_channel and _is_part(spec, other):
                return self._part(result, spec.out_channels)
        if by_channel and spec.operator is Operator.DEPTHWISE_CONV and id(x) in self._whole:
            for other, result in self._results.get((spec.site, id(self._whole[id(x)])), []):
                if _is_part(spec, other):
                    return self._part(result, spec.out_channels)
        output = compute(x)
        if not self.keeps:
            return output
        known.append((spec, result := self._keep(output)))
        return result.leaf

    def sum(self, x: Tensor, shortcut: Tensor, activation: Activation) -> Tensor:
        """`activation(x + shortcut)`, or what it was for the same two tensors.

        Args:
            x: What the layers of a block computed.
            shortcut: Of the same shape.
            activation: Of the block.

        Returns:
            As from `output`, where both tensors are shared.
        """
        key = activation, id(x), id(shortcut)
        if key in self._sums:
            return self._sums[key].leaf
        output = apply_activation(x + shortcut, activation)
        if not self.keeps or id(x) not in self._shared or id(shortcut) not in self._shared:
            return output
        self._sums[key] = self._keep(output)
        return self._sums[key].leaf

    def _keep(self, output: Tensor) -> _Result:
        # Families go on in channels-last; a copy that they made would not be shared.
        leaf = output.detach().contiguous(memory_format=torch.channels_last)
        result = _Result(output, leaf.requires_grad_(output.requires_grad))
        self._order.append(result)
        self.share(leaf)
        return result

    def _part(self, result: _Result, channels: int) -> Tensor:
        part = result.part(channels)
        self._whole[id(part)] = result.leaf
        self.share(part)
        return part

    def backward(self) -> None:
        """Pass the gradients that the leaves have received on to what they were computed from."""
        for result in reversed(self._order):
            if (gradient := result.gradient()) is not None:
                torch.autograd.backward(result.output, gradient)


def _is_part(spec: LayerSpec, other: LayerSpec) -> bool:
    """Whether a layer writes the first channels of what `other` writes, of the same input; for a
    depthwise convolution, of its first channels."""
    if spec.out_channels >= other.out_channels:
        return False
    wider = replace(spec, out_channels=other.out_channels)
    if spec.operator is Operator.DEPTHWISE_CONV:
        wider = replace(wider, in_channels=other.in_channels, groups=other.groups)
    return wider == other
