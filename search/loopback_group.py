"""A process group of workers that are all on this host, out of reach of any other one.

Ray Train's own lets torch.distributed listen on every interface, and whoever connects there can
write into the store from which the workers learn where the others are.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_HOST = "127.0.0.1"
_LEAVE_S = 30.0
# In the worker of rank 0, from the moment it listens.
_stores: list[TCPStore] = []


class _LoopbackBackend(Backend):
    # As Ray Train's own: NCCL talks to the GPUs of all workers.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: LoopbackConfig) -> None:
        size, seconds = len(worker_group), backend_config.timeout_s
        port = worker_group.execute_single(0, _listen, seconds)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join, backend_config.backend, rank, size, port, seconds
                )
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: LoopbackConfig) -> None:
        # The workers end anyway.
        with suppress(ray.exceptions.GetTimeoutError):
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_S)


@dataclass
class LoopbackConfig(TorchConfig):
    """For `TorchTrainer(torch_config=...)`; `backend` must be given: gloo or nccl."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls."""
        return _LoopbackBackend


def _listen(timeout_s: int) -> int:
    """In the worker of rank 0: serve the group's store; its port."""
    # torch itself would bind every interface, whatever host it is told.
    listener = socket.create_server((_HOST, 0))
    port = int(listener.getsockname()[1])
    store = TCPStore(
        _HOST,
        port,
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    _stores.append(store)
    return port


def _join(backend: str, rank: int, size: int, port: int, timeout_s: int) -> None:
    timeout = timedelta(seconds=timeout_s)
    # The workers' own connections.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    store = _stores.pop() if rank == 0 else TCPStore(_HOST, port, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
