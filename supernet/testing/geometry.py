"""What a family's dimensions, slots and layers must hold. Each check fails by AssertionError."""

from __future__ import annotations

import numpy as np

from spaces.config import Config
from spaces.dimension import DimensionKind
from spaces.families.quantisation import FORM_READS
from spaces.layer_spec import LayerSpec, Operator
from spaces.population import sample
from spaces.quant_scheme import FLOAT_BITS
from spaces.space import SearchSpace

_PRECISION = (
    DimensionKind.W_BITS,
    DimensionKind.A_BITS,
    DimensionKind.GRANULARITY,
    DimensionKind.SYMMETRY,
)
_WINDOWS = (Operator.CONV, Operator.DEPTHWISE_CONV, Operator.MAX_POOL)


def random_configs(space: SearchSpace, count: int, seed: int = 0) -> list[Config]:
    """The largest, the smallest, and `count` random configs."""
    rows = sample(space, count, np.random.default_rng(seed))
    return [space.max_config(), space.min_config(), *map(space.from_indices, rows)]


def in_float(config: Config) -> Config:
    """The same architecture with float32 weights in every layer that may have them."""
    floats = {
        d.name: FLOAT_BITS
        for d in config.space.dimensions
        if d.kind is DimensionKind.W_BITS and FLOAT_BITS in d.choices
    }
    return config.space.config({**config, **floats})


def check_dimensions(space: SearchSpace) -> None:
    """Names are unique, a resolution exists, and no dimension is without effect."""
    names = space.names
    assert len(set(names)) == len(names), "two dimensions have one name"
    kinds = {d.name: d.kind for d in space.dimensions}
    assert kinds.get("resolution") is DimensionKind.RESOLUTION, (
        "there is no dimension 'resolution' of the kind resolution"
    )
    read = {name for slot in space.slots for name in slot.reads}
    read |= {slot.depth[0] for slot in space.slots if slot.depth is not None}
    idle = [name for name in names if name not in read]
    assert not idle, f"no slot reads {idle}"


def check_slots(space: SearchSpace) -> None:
    """Slots read dimensions that exist, and the genes of a skipped slot are its own."""
    titles = [slot.name for slot in space.slots]
    assert len(set(titles)) == len(titles), "two slots have one name"
    dimensions = {d.name: d for d in space.dimensions}
    readers: dict[str, list[str]] = {}
    for slot in space.slots:
        assert len(set(slot.reads)) == len(slot.reads), f"{slot.name} reads a dimension twice"
        unknown = sorted({*slot.reads} - {*dimensions} - {*FORM_READS})
        assert not unknown, f"{slot.name} reads {unknown}, which are no dimensions"
        for name in slot.reads:
            readers.setdefault(name, []).append(slot.name)
    for slot in space.slots:
        if slot.depth is None:
            continue
        depth, least = slot.depth
        assert depth in dimensions, f"{slot.name} depends on {depth!r}, which is no dimension"
        kind = dimensions[depth].kind
        assert kind is DimensionKind.DEPTH, f"{slot.name} depends on {depth!r} of the kind {kind}"
        # A space leaves the genes below the name of a skipped slot out of a config's key.
        below = [name for name in dimensions if name.startswith(f"{slot.name}.")]
        shared = [name for name in below if readers.get(name) != [slot.name]]
        assert not shared, f"{shared} begin with {slot.name}, but that slot alone must read them"
        skipped = any(int(choice) < least for choice in dimensions[depth].choices)
        own = [n for n in slot.reads if readers[n] == [slot.name] and n not in (*below, depth)]
        assert not (skipped and own), (
            f"{own} count for {slot.name} alone, so their names must begin with {slot.name!r}: "
            "otherwise a config without this slot has several keys"
        )


def check_choices(config: Config) -> None:
    """A slot's layers depend on what it reads and on nothing else; every choice matters.

    Choices of quantisation are exempt from the latter: they mean nothing where weights are float32.
    """
    space = config.space
    present = [s for s in space.slots if s.depth is None or int(config[s.depth[0]]) >= s.depth[1]]
    layers = {}
    for slot in present:
        read = {name: config[name] for name in slot.reads if name in config}
        message = f"layers of {slot.name} depend on more than it reads: {slot.reads}"
        try:
            layers[slot.name] = slot.layers(read)
        except KeyError as error:
            raise AssertionError(f"{message} ({error})") from error
        assert layers[slot.name] == slot.layers(config), message
    depths = {slot.depth[0] for slot in space.slots if slot.depth is not None}
    for column in np.flatnonzero(space.active(config.indices[None])[0]):
        dimension = space.dimensions[int(column)]
        if dimension.kind in _PRECISION or dimension.name in depths:
            continue
        readers = [slot for slot in present if dimension.name in slot.reads]
        for choice in dimension.choices:
            if choice != config[dimension.name]:
                other = {**config, dimension.name: choice}
                same = all(slot.layers(other) == layers[slot.name] for slot in readers)
                assert not same, (
                    f"{dimension.name} = {choice} and {config[dimension.name]} give the same layers"
                )


def check_layers(config: Config) -> None:
    """Every layer reads what the one before wrote; none is larger than in the largest config."""
    space = config.space
    family, layers = space.family, space.layer_specs(config)
    largest = {spec.site: spec for spec in space.layer_specs(space.max_config())}
    assert len({spec.site for spec in layers}) == len(layers), "two layers have one site"
    # (channels, size) of the tensor that flows, and of the shortcut of its block.
    flow = shortcut = family.input_channels, int(config["resolution"])
    block = ""
    for spec in layers:
        if spec.block != block:
            block, shortcut = spec.block, flow
        assert (spec.in_channels, spec.in_size) == flow, f"{spec} reads (channels, size) {flow}"
        if spec.operator in _WINDOWS:
            size = (spec.in_size + 2 * spec.padding - spec.kernel) // spec.stride + 1
            assert spec.out_size == size, f"{spec} writes a map of size {size}"
        assert spec.site in largest, f"{spec.site} is no site of the largest config"
        assert _fits(spec, largest[spec.site]), f"{spec} is larger than {largest[spec.site]}"
        written = spec.out_channels, spec.out_size
        if spec.shortcut:
            shortcut = written
            continue
        flow = written
        if spec.residual:
            assert shortcut == flow, f"{spec} adds (channels, size) {shortcut} to {flow}"
    assert flow == (family.classes, 1), f"the last layer writes {flow}, not {family.classes} logits"


def _fits(spec: LayerSpec, largest: LayerSpec) -> bool:
    return (
        spec.operator is largest.operator
        and spec.in_channels <= largest.in_channels
        and spec.out_channels <= largest.out_channels
        and spec.hidden_channels <= largest.hidden_channels
    )
