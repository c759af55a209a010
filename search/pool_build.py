"""A latency table of a space, measured on a pool of devices within a stated time.

Configs go through in small batches: all are built for every device, then measured device by
device, then some of them once more, which says how well latencies repeat. What a batch found is
stored at its end, so that whoever is interrupted goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from compilers.devices import Device, make_device
from compilers.errors import BuildError
from compilers.isolation import Worker
from search.device_pool import find_pool
from search.host_lock import HostLock, announce
from search.latency_tables import find_config, space_definition, space_key
from search.pool_batches import PoolBuild, PoolReport
from search.progress import Progress
from search.spaces_view import show_space
from search.store import Store
from search.store_latencies import StoredTable, TableDevice
from spaces import Config, SearchSpace
from spaces.population import sample

_DRAWN = 256
_DRAWS = 50


def build_pool(
    store: Store,
    space: str,
    progress: Progress,
    *,
    devices: Sequence[str] = (),
    table: str | None = None,
    configs: int = 120,
    minutes: float | None = None,
    repeats: float = 0.2,
    retry: bool = False,
    processes: int = 2,
) -> PoolReport:
    """Measure random configs of a space on every device of a pool.

    What is done is kept; called again, it goes on with the same configs. Weights do not matter for
    latencies: subnets are parts of a supernet that was never trained.

    Args:
        store: Receives the table.
        space: Name of a space.
        progress: Told how far it is.
        devices: Names; the default pool when empty.
        table: Name of the table; that of the base space when None.
        configs: How many, of those that every device executes; the ones that the table has come
            first.
        minutes: Begin no batch that would not end in time.
        repeats: Share of the pairs that are measured twice, 0 to 1.
        retry: Whether to try pairs again that failed before.
        processes: Configs built at the same time.

    Raises:
        UnknownNameError: No such space or device.
        DeviceError: This machine cannot be a device.
        SpaceError: The space has nothing that all devices execute.
        RecordConflictError: The table is of another space, or of other hardware.
    """
    start = time.monotonic()
    named = show_space(store, space)
    pool = find_pool(store, devices)
    name = table or named.base or named.name
    report = PoolReport(name, [device.name for device in pool])
    with ExitStack() as stack:
        opened = {d.name: stack.enter_context(make_device(d.config)) for d in pool}
        allowed = _executed(named.space, opened, progress)
        store.latencies.open_table(
            name,
            space_definition(named.space, named.base or named.name),
            space_key(named.space),
            [TableDevice(d.name, d.family, opened[d.name].hardware) for d in pool],
        )
        stored = store.latencies.read(name)
        chosen = pool_configs(allowed, list(stored.configs.values()), configs)
        todo = _missing(stored, chosen, list(opened), retry)
        report.configs, report.pairs = len(chosen), len(chosen) * len(pool)
        report.known = report.pairs - sum(map(len, todo.values()))
        work = PoolBuild(store, name, allowed, pool, opened, report, progress, repeats, processes)
        deadline = None if minutes is None else start + 60.0 * minutes
        try:
            report.complete = work.run(todo, deadline)
        finally:
            report.seconds = time.monotonic() - start
    return report


def pool_configs(
    space: SearchSpace, known: Sequence[Mapping[str, Any]], count: int
) -> list[Config]:
    """Different configs of a space: those known already, then random ones, always the same.

    Returns:
        `count` of them, or fewer if the space has fewer.
    """
    inside = (find_config(space, values) for values in known)
    found = dict.fromkeys(config for config in inside if config is not None)
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        if len(found) >= count:
            break
        found.update(dict.fromkeys(map(space.from_indices, sample(space, _DRAWN, rng))))
    return list(found)[:count]


def _executed(space: SearchSpace, opened: Mapping[str, Device], progress: Progress) -> SearchSpace:
    """The part of a space that all devices execute."""
    most = max(device.config.threads for device in opened.values())
    with Worker("compiler", BuildError, threads=most) as compiler:
        for number, (name, device) in enumerate(opened.items()):
            progress("probe of devices", number, len(opened))
            device.compile_in(compiler)
            # A probe compiles and runs kernels: not while a job measures on this host.
            with HostLock().shared(f"probe of device {name}", on_wait=announce(progress)):
                space = space.restrict(device.probe())
    progress("probe of devices", len(opened), len(opened))
    return space


def _missing(
    stored: StoredTable, configs: Sequence[Config], devices: Sequence[str], retry: bool
) -> dict[Config, list[str]]:
    """Config -> names of the devices that have neither a latency nor, if those count, a failure."""
    places = {key: place for place, key in enumerate(stored.configs)}
    missing: dict[Config, list[str]] = {}
    for config in configs:
        place = places.get(config.key)
        names = [
            name
            for name in devices
            if place is None or np.isnan(stored.latencies[name][place])
            if retry or (config.key, name) not in stored.failures
        ]
        if names:
            missing[config] = names
    return missing
