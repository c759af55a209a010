"""Every kernel that the subnets of a search space can contain, without walking the subnets.

Which kernels a block of layers becomes depends on its layers, on whether it reads the network's
input, and on whether what follows quantises its output: fusion looks no further, since a value
that leaves a block is stored once, in the element type that its readers take. A space says which
few dimensions a block's layers depend on (`Slot.reads`), so all blocks are tried one by one, each
between a stand-in for what comes before and one for what comes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

from compilers.fusion import fuse
from compilers.kernels.base import Kernel
from compilers.spec_graph import subnet_graph
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import U8_ACTIVATION, LayerPrecision
from spaces.space import SearchSpace

Layers = tuple[LayerSpec, ...]


def block_kernels(
    layers: Layers, *, reads_input: bool, quantised_after: bool
) -> tuple[Kernel, ...]:
    """The kernels of neighbouring layers that form whole blocks, one for every call.

    Args:
        layers: In the order of execution.
        reads_input: Whether the first one reads the network's input.
        quantised_after: Whether the layer behind them reads integers.

    Raises:
        UnsupportedOperatorError: No kernel has the shape of one of them.
    """
    return _block_kernels(_anonymous(layers), reads_input, quantised_after)


def space_kernels(space: SearchSpace) -> tuple[Kernel, ...]:
    """Every distinct kernel of every subnet of a space, in the order of the network.

    Exact as long as the choices that decide a block's layers leave the precision of the next block
    free; otherwise some kernels may be listed that no subnet has, but none is left out.

    Raises:
        UnsupportedOperatorError: No kernel has the shape of a layer that the space contains.
    """
    blocks = [list(_choices(space, number)) for number in range(len(space.slots))]
    reads = [{quantised_input(layers) for layers in choices} for choices in blocks]
    found: dict[Kernel, None] = {}
    for number, choices in enumerate(blocks):
        after = {q for following in _followers(space, number) for q in reads[following]}
        for layers in choices:
            # Behind the last block nothing quantises.
            for quantised in sorted(after or {False}):
                kernels = block_kernels(layers, reads_input=number == 0, quantised_after=quantised)
                found.update(dict.fromkeys(kernels))
    return tuple(found)


def quantised_input(layers: Sequence[LayerSpec]) -> bool:
    """Whether a block reads integers: all layers that read its input quantise it alike."""
    projections = sum(spec.shortcut for spec in layers)
    schemes = {spec.precision.activation for spec in layers[: projections + 1]}
    return len(schemes) == 1 and None not in schemes


# A space has some ten thousand different blocks; a predictor asks for them again and again.
@lru_cache(maxsize=1 << 17)
def _block_kernels(layers: Layers, reads_input: bool, quantised_after: bool) -> tuple[Kernel, ...]:
    specs = list(layers)
    last = layers[-1]
    if not reads_input:
        specs.insert(0, _before(layers[0]))
    if quantised_after or last.operator not in (Operator.LINEAR, Operator.GLOBAL_POOL):
        specs.append(_after(last, quantised_after))
    sites = {spec.site for spec in layers}
    sites |= {f"{site}.{part}" for site in sites for part in ("reduce", "expand", "depthwise")}
    return tuple(call.kernel for call in fuse(subnet_graph(specs)).calls if call.site in sites)


def _before(first: LayerSpec) -> LayerSpec:
    """A layer that leaves what `first` reads."""
    operator = Operator.LINEAR if first.operator is Operator.LINEAR else Operator.CONV
    return LayerSpec(
        "before", operator, first.in_channels, first.in_channels, first.in_size, first.in_size
    )


def _after(last: LayerSpec, quantised: bool) -> LayerSpec:
    """A layer that reads what `last` leaves, as integers or not."""
    flat = last.operator in (Operator.LINEAR, Operator.GLOBAL_POOL)
    operator = Operator.LINEAR if flat else Operator.GLOBAL_POOL
    precision = LayerPrecision(None, U8_ACTIVATION if quantised else None)
    channels = last.out_channels
    return LayerSpec("after", operator, channels, channels, last.out_size, 1, precision=precision)


def _anonymous(layers: Layers) -> Layers:
    """The same layers under names that only say which of them share a block."""
    blocks: dict[str, str] = {"": ""}
    renamed = []
    for number, spec in enumerate(layers):
        block = blocks.setdefault(spec.block, f"block{len(blocks)}.")
        renamed.append(replace(spec, site=f"{block}{number}"))
    return tuple(renamed)


def _choices(space: SearchSpace, number: int) -> Iterator[Layers]:
    """The layers of a slot for every combination of the dimensions that it reads."""
    slot = space.slots[number]
    if not _assignments(space, [number]):
        return
    dimensions = [space.dimensions[space.position(name)] for name in slot.reads]
    for values in product(*(dimension.choices for dimension in dimensions)):
        yield slot.layers(dict(zip(slot.reads, values, strict=True)))


def _followers(space: SearchSpace, number: int) -> Iterator[int]:
    """The slots that can come right after one in some subnet."""
    for following in range(number + 1, len(space.slots)):
        slots = range(number, following + 1)
        present = [number, following]
        if any(all(there[s] == (s in present) for s in slots) for there in _presence(space, slots)):
            yield following


def _assignments(space: SearchSpace, slots: Sequence[int]) -> bool:
    """Whether all of some slots can be present together."""
    return any(all(there.values()) for there in _presence(space, slots))


def _presence(space: SearchSpace, slots: Sequence[int]) -> Iterator[dict[int, bool]]:
    """Which of some slots are present, for every combination of the depths that decide it."""
    gates = {slot: space.slots[slot].depth for slot in slots}
    names = list(dict.fromkeys(gate[0] for gate in gates.values() if gate is not None))
    dimensions = [space.dimensions[space.position(name)] for name in names]
    for values in product(*(dimension.choices for dimension in dimensions)):
        depths = {name: int(value) for name, value in zip(names, values, strict=True)}
        yield {slot: gate is None or depths[gate[0]] >= gate[1] for slot, gate in gates.items()}
