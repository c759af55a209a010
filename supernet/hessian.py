"""How sharply the loss bends in each layer's weights: Hutchinson's estimate of Hessian traces.

HAWQ-V2 (Dong et al. 2020): with random signs v, the mean of v' H v is the trace of H. One v for all
layers at once gives every layer's trace from one product, since terms that mix layers have zero
mean. Straight-through gradients of quantisers have no meaningful second derivative, so the traces
are those of the largest config in float32, with BatchNorm in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from supernet.data import resize
from supernet.float32 import activate_float32
from supernet.recalibration import recalibrate
from supernet.supernet import Supernet


class _TwiceDifferentiable(TorchFunctionMode):
    """Within it, hard sigmoids are computed as clipped lines: torch knows no second derivative of
    its own."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.hardsigmoid:
            return (args[0] / 6 + 0.5).clamp(0, 1)
        return func(*args, **(kwargs or {}))


def mean_eigenvalues(
    loss: Tensor, parameters: Mapping[str, Tensor], probes: int, generator: torch.Generator
) -> dict[str, float]:
    """The trace of the Hessian of `loss` by each parameter, over its number of elements.

    Args:
        loss: Scalar with a graph that can be differentiated twice.
        parameters: Name -> tensor on which the loss depends.
        probes: Random directions; the standard error falls with their square root.
        generator: Source of the directions.

    Returns:
        Name -> estimate; never negative, as that of a sum of few samples could be.
    """
    tensors = list(parameters.values())
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    totals = [0.0] * len(tensors)
    for _ in range(probes):
        signs = [
            torch.randint(0, 2, t.shape, generator=generator).mul_(2).sub_(1).to(t) for t in tensors
        ]
        products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True)
        for number, (sign, product) in enumerate(zip(signs, products, strict=True)):
            totals[number] += float((sign * product).sum())
    sizes = [tensor.numel() for tensor in tensors]
    return {
        name: max(0.0, total / probes / size)
        for name, total, size in zip(parameters, totals, sizes, strict=True)
    }


def layer_eigenvalues(
    supernet: Supernet, images: Tensor, labels: Tensor, probes: int, seed: int
) -> dict[str, float]:
    """Mean Hessian eigenvalue of every layer's weights in the largest config in float32.

    Recalibrates BatchNorm for that config, and leaves it active in evaluation mode.

    Args:
        supernet: Its gradients are left alone.
        images: float32 [n, c, h, w], resized here.
        labels: int64 [n].
        probes: Random directions.
        seed: Decides them.

    Returns:
        Site -> estimate, for every layer of the largest config that has weights.
    """
    config = supernet.space.max_config()
    activate_float32(supernet, config)
    recalibrate(supernet, images)
    sites = {spec.site for spec in supernet.space.layer_specs(config)}
    learned = {id(parameter) for parameter in supernet.weight_parameters()}
    weights = {
        f"{site}/{name}": parameter
        for site, layer in supernet.layers().items()
        if site in sites
        for name, parameter in layer.named_parameters()
        if id(parameter) in learned and parameter.dim() > 1 and "kernel_transforms" not in name
    }
    with _TwiceDifferentiable():
        logits = supernet(resize(images, supernet.resolution))
    generator = torch.Generator().manual_seed(seed)
    loss = F.cross_entropy(logits, labels)
    values = mean_eigenvalues(loss, weights, probes, generator)
    # A layer of several weights, such as squeeze-and-excite, has the mean over all their elements.
    sums: dict[str, tuple[float, int]] = {}
    for name, parameter in weights.items():
        site = name.partition("/")[0]
        total, size = sums.get(site, (0.0, 0))
        sums[site] = (total + values[name] * parameter.numel(), size + parameter.numel())
    return {site: total / size for site, (total, size) in sums.items()}
