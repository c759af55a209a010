"""World: the workers that train one supernet together, each on its own rows of every batch.

The global batch, the drawn configs and hence the weights are the same for any number of workers:
rank r takes rows r::size of a batch, and whatever is a mean or a sum over the batch goes through
its world.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class World(ABC):
    """The group of workers, as one of them sees it.

    Every worker calls the same methods in the same order with tensors of the same shapes; each
    call waits for the others.

    Attributes:
        rank: Number of this worker, 0 to size - 1.
        size: Number of workers.
        device: Where this worker computes.
    """

    rank: int
    size: int
    device: torch.device

    @abstractmethod
    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients by their means over the workers, in place; a parameter without one
        has none on any worker."""

    @abstractmethod
    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the workers, the same on all of them to the last bit.

        Differentiable: the gradient is that of the sum of all workers' losses.
        """

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every worker is here."""

    @property
    def rows(self) -> slice:
        """The rows of a global batch that are this worker's."""
        return slice(self.rank, None, self.size)

    def share(self, count: int) -> float:
        """What to multiply a mean over this worker's rows with, so that the mean over the workers
        is the mean over all `count` rows; 1 where every worker has as many."""
        return len(range(self.rank, count, self.size)) * self.size / count


class SingleWorld(World):
    """One worker that has every row.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.rank, self.size, self.device = 0, 1, torch.device(device)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Nothing to do."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def barrier(self) -> None:
        """Nothing to wait for."""


class TorchWorld(World):
    """The default process group of torch.distributed: gloo for CPUs, nccl for CUDA.

    Args:
        device: Where this worker computes.

    Raises:
        ValueError: The process group is not initialised.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients or self.size == 1:
            return
        # One message: small ones cost more than what they carry.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return total

    def barrier(self) -> None:
        dist.barrier()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_reduced(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _all_reduced(grads[0])


def _all_reduced(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
