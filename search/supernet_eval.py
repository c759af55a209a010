"""How good the subnets of a trained supernet are: its ends and random ones, at uniform bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from search.artifacts import ArtifactStore
from search.errors import SearchError
from search.home import supernet_folder
from search.host_lock import HostLock, announce
from search.progress import Progress
from search.store import Store
from search.supernet_view import stored_description, supernet_of
from search.supernets import restore_supernet
from spaces import FP32, Choice, Config, DimensionKind, LayerSpec, SearchSpace, cost
from spaces.population import sample
from supernet import DataConfig, DataSplits, Supernet, evaluate, load_data

_BITS = (DimensionKind.W_BITS, DimensionKind.A_BITS)
_FORM = (DimensionKind.GRANULARITY, DimensionKind.SYMMETRY)
_MOST_FORMS = 64
# Draws for each random subnet that is wanted, since some may have the same architecture.
_DRAWS = 8


@dataclass(frozen=True)
class Variant:
    """A subnet with all its layers at one bit-width and in one form.

    Attributes:
        subnet: `smallest`, `largest`, or `random` and its number.
        bits: Bits of all weights (and activations, where a space has them apart) that have them to
            choose, the others at the nearest they have; None: the space has no bits to choose.
        form: Form dimension -> choice; empty when nothing is quantised or nothing can be chosen.
        config: The subnet.
    """

    subnet: str
    bits: int | None
    form: dict[str, Choice]
    config: Config


@dataclass(frozen=True)
class SubnetScore:
    """What a variant is worth.

    Attributes:
        subnet, bits, form: See `Variant`.
        accuracy: On the selection split, BatchNorm recalibrated, %.
        stale_accuracy: Likewise with the statistics of the largest subnet, which a supernet keeps.
        macs: Multiply-accumulates of one inference.
        params: Weights and biases.
        bytes: In the on-disk layout.
        key: The config's key.
    """

    subnet: str
    bits: int | None
    form: dict[str, Choice]
    accuracy: float
    stale_accuracy: float
    macs: int
    params: int
    bytes: int
    key: str

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class SupernetScores:
    """The scores of a supernet's subnets.

    Attributes:
        key: The supernet.
        space: Name of its space.
        images: Images that accuracies are of.
        subnets: The scores.
    """

    key: str
    space: str
    images: int
    subnets: list[SubnetScore]

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


def evaluate_supernet(
    name: str,
    count: int,
    seed: int,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
) -> SupernetScores:
    """Score the smallest, the largest and `count` random subnets at every uniform precision.

    Args:
        name: Key of a trained supernet, or id of a job that has one.
        count: Random architectures.
        seed: Decides which.
        store: The open store.
        artifacts: Where the supernet is stored.
        home: The working home.
        progress: Told about every subnet.

    Raises:
        UnknownNameError: No trained supernet of that name.
        SearchError: It is not known what it was trained on, its data has changed, or its space has
            too many forms.
        DataError: The data cannot be loaded.
        ArtifactError: The stored supernet is missing or damaged.
    """
    row = supernet_of(store, name)
    known = stored_description(store, row)
    if not known:
        raise SearchError(f"nothing says on which data supernet {row.key} was trained")
    config = DataConfig.model_validate(known["data"])
    identity = config.identity()
    if known.get("data_identity", identity) != identity:
        raise SearchError(
            f"the data of supernet {row.key} ({config.path or config.name}) has changed since its "
            "training"
        )
    data = load_data(config, progress)
    with HostLock().shared(f"evaluation of supernet {row.key}", on_wait=announce(progress)):
        supernet = restore_supernet(artifacts, supernet_folder(home, row.key), row.artifact)
        found = scores(supernet, data, variants(supernet.space, count, seed), progress)
    return SupernetScores(row.key, supernet.space.name, len(data.selection), found)


def scores(
    supernet: Supernet, data: DataSplits, wanted: Sequence[Variant], progress: Progress
) -> list[SubnetScore]:
    """The score of each variant; the supernet must hold the statistics of its largest subnet."""
    total = 2 * len(wanted)
    progress("evaluate", 0, total)
    stale = []
    # All of them before the first recalibration, which replaces the statistics.
    for done, one in enumerate(wanted, 1):
        stale.append(evaluate(supernet, one.config, data, recalibrated=False).accuracy)
        progress("evaluate", done, total)
    found = []
    for done, one in enumerate(wanted, 1):
        accuracy = evaluate(supernet, one.config, data).accuracy
        costs = cost(supernet.space.layer_specs(one.config))
        found.append(
            SubnetScore(
                subnet=one.subnet,
                bits=one.bits,
                form=one.form,
                accuracy=100 * accuracy,
                stale_accuracy=100 * stale[done - 1],
                macs=costs.macs,
                params=costs.params,
                bytes=costs.bytes,
                key=one.config.key,
            )
        )
        progress("evaluate", len(wanted) + done, total)
    return found


def variants(space: SearchSpace, count: int, seed: int) -> list[Variant]:
    """The smallest, the largest and up to `count` random architectures of a space, each at every
    uniform precision; no two are the same subnet.

    Raises:
        SearchError: The space has too many forms to try all.
    """
    drawn = sample(space, _DRAWS * count, np.random.default_rng(seed))
    named = {"smallest": space.min_config(), "largest": space.max_config()}
    precisions = list(_precisions(space))
    forms = {d.name for d in space.dimensions if d.kind in _FORM}
    seen: set[tuple[LayerSpec, ...]] = set()
    found: list[Variant] = []

    def add(name: str, base: Config) -> bool:
        fresh = []
        for bits, values in precisions:
            config = space.config({**base, **values})
            specs = space.layer_specs(config)
            if specs in seen:
                continue
            seen.add(specs)
            is_float = all(spec.precision == FP32 for spec in specs)
            form = {} if is_float else {n: c for n, c in values.items() if n in forms}
            fresh.append(Variant(name, bits, form, config))
        found.extend(fresh)
        return bool(fresh)

    for name, base in named.items():
        add(name, base)
    number = 0
    for row in drawn:
        if number < count and add(f"random {number + 1}", space.from_indices(row)):
            number += 1
    return found


def _precisions(space: SearchSpace) -> Iterator[tuple[int | None, dict[str, Choice]]]:
    """(bits, dimension -> choice) of every uniform precision, fewest bits first."""
    weights = [d for d in space.dimensions if d.kind is DimensionKind.W_BITS]
    precise = [d for d in space.dimensions if d.kind in _BITS]
    forms = [d for d in space.dimensions if d.kind in _FORM]
    if prod(len(d.choices) for d in forms) > _MOST_FORMS:
        raise SearchError(f"space {space.name} has more than {_MOST_FORMS} forms of quantisation")
    widths: list[int | None] = [*sorted({int(c) for d in weights for c in d.choices})] or [None]
    for bits in widths:
        chosen: dict[str, Choice] = {}
        if bits is not None:
            for dimension in precise:
                near = min(dimension.choices, key=lambda c: (abs(int(c) - bits), -int(c)))
                chosen[dimension.name] = near
        for form in product(*(d.choices for d in forms)):
            yield bits, chosen | {d.name: c for d, c in zip(forms, form, strict=True)}
