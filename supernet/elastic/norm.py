"""Batch normalisation over a prefix of the channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.distributed import SingleWorld, World
from supernet.elastic.affine import ElasticAffine


class ElasticBatchNorm2d(ElasticAffine):
    """BatchNorm whose active channels are a prefix of `channels`.

    Statistics of one subnet are wrong for another (Yu et al. 2019, "Slimmable Neural Networks"),
    so training uses batch statistics only and keeps none; `supernet.recalibration` estimates them
    for the active subnet. Where several workers hold parts of a batch (`world`), the statistics
    are those of the whole batch, on CPUs as well as on GPUs.

    Args:
        channels: Channels of the store.
        eps: Added to the variance.

    Attributes:
        world: Whose workers see one batch in training mode; see `Supernet.shared_batches`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps
        self.averaged: int | None = None
        self.world: World = SingleWorld()

    def start_recalibration(self) -> None:
        """From now on, training-mode batches enter a cumulative average of the statistics."""
        self.averaged = 0

    def stop_recalibration(self) -> None:
        """Leave the statistics as they are."""
        self.averaged = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, active, H, W] -> the same shape."""
        weight, bias = self._view(self.weight).flatten(), self._view(self.bias).flatten()
        if self.training and self.averaged is None and self.world.size == 1:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        stores = (self._view(self.running_mean), self._view(self.running_var))
        mean, var = (store.flatten() for store in stores)
        if not self.training:
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        if self.world.size > 1:
            return self._forward_shared(x, weight, bias, stores)
        assert self.averaged is not None
        self.averaged += 1
        out = F.batch_norm(x, mean, var, weight, bias, True, 1 / self.averaged, self.eps)
        for store, updated in zip(stores, (mean, var), strict=True):
            if store.data_ptr() != updated.data_ptr():
                # A view of several axes, which had to be copied to be flat.
                store.copy_(updated.view_as(store))
        return out

    def _forward_shared(
        self, x: Tensor, weight: Tensor, bias: Tensor, stores: tuple[Tensor, Tensor]
    ) -> Tensor:
        mean, var, count = _shared_moments(x, self.world)
        if self.averaged is not None:
            self.averaged += 1
            unbiased = var * (count / (count - 1))
            for store, latest in zip(stores, (mean, unbiased), strict=True):
                store.lerp_(latest.view_as(store), 1 / self.averaged)
        out: Tensor = _SharedBatchNorm.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, mean, var, count, self.eps, self.world
        )
        return out

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """See `ElasticAffine`: with the statistics that the store holds."""
        n = self.active
        multiplier = self.weight[:n] * torch.rsqrt(self.running_var[:n] + self.eps)
        return multiplier, self.bias[:n] - self.running_mean[:n] * multiplier


@torch.no_grad()
def _shared_moments(x: Tensor, world: World) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance, float32 [C], of the channels of all workers' `x` [n, C, H, W], and
    the number of values of a channel.

    Sums in float64 of local moments (Chan et al. 1979): a sum of squares in float32 would lose the
    variance of a channel whose mean is large.
    """
    local_var, local_mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
    mean = local_mean.double()
    square = local_var.double() + mean.square()
    sums = torch.cat([mean, square, mean.new_ones(1)]) * (x.numel() // x.shape[1])
    total = world.sum(sums)
    mean, square = (total[:-1] / total[-1]).chunk(2)
    return mean.float(), (square - mean.square()).float(), float(total[-1])


class _SharedBatchNorm(torch.autograd.Function):
    """Normalisation by the moments of all workers' values, with the gradient through them: in the
    formula of BatchNorm's gradient (Ioffe and Szegedy 2015) both means are over all workers."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        count: float,
        eps: float,
        world: World,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.world = count, eps, world
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # As if the moments were constants.
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        total = ctx.world.sum(torch.cat([grad_bias, grad_weight]).double()) / ctx.count
        mean_grad, mean_grad_x = total.float().chunk(2)  # of grad, and of grad times normalised x
        inverse = torch.rsqrt(var + ctx.eps)
        offset = (weight * inverse * mean_grad)[:, None, None]
        slope = (weight * inverse.square() * mean_grad_x)[:, None, None]
        grad_x = grad_x - offset - (x - mean[:, None, None]) * slope
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None, None
