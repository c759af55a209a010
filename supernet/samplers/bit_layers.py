"""Which layers the bits of a dimension belong to, and how much they weigh in an average."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.cost import layer_cost
from spaces.dimension import Choice, Dimension, DimensionKind
from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import FLOAT_BITS
from spaces.space import SearchSpace


@dataclass(frozen=True, slots=True)
class BitDimension:
    """A dimension of bits with more than one choice.

    Attributes:
        column: Its place in a population.
        choices: Bits, ascending.
        sites: Layers of the largest config whose precision it decides.
        size: Weights (of w_bits) or elements of the inputs (of a_bits) of these layers.
    """

    column: int
    choices: tuple[int, ...]
    sites: tuple[str, ...]
    size: float


def bit_dimensions(space: SearchSpace, kind: DimensionKind) -> list[BitDimension]:
    """All dimensions of `kind`, w_bits or a_bits, that have more than one choice.

    What they decide is found by changing one at a time in the largest config; bits of inputs in the
    largest whose layers are quantised, as a float32 layer has none.
    """
    largest: dict[str, Choice] = {d.name: d.choices[-1] for d in space.dimensions}
    if kind is DimensionKind.A_BITS:
        weights = (d for d in space.dimensions if d.kind is DimensionKind.W_BITS)
        largest |= {d.name: _most_integer_bits(d) for d in weights}
    before = space.layer_specs(space.config(largest))
    found = []
    for column, dimension in enumerate(space.dimensions):
        if dimension.kind is not kind or len(dimension.choices) < 2:
            continue
        changed = space.config(largest | {dimension.name: dimension.choices[0]})
        specs = [
            spec
            for spec, other in zip(before, space.layer_specs(changed), strict=True)
            if _scheme(spec, kind) != _scheme(other, kind)
        ]
        found.append(
            BitDimension(
                column,
                tuple(int(choice) for choice in dimension.choices),
                tuple(spec.site for spec in specs),
                float(sum(_size(spec, kind) for spec in specs)),
            )
        )
    return found


def _most_integer_bits(dimension: Dimension) -> Choice:
    """The last choice that is not float32, where there is one."""
    integers = [choice for choice in dimension.choices if choice != FLOAT_BITS]
    return integers[-1] if integers else FLOAT_BITS


def _scheme(spec: LayerSpec, kind: DimensionKind) -> object:
    precision = spec.precision
    return precision.weight if kind is DimensionKind.W_BITS else precision.activation


def _size(spec: LayerSpec, kind: DimensionKind) -> int:
    if kind is DimensionKind.W_BITS:
        return layer_cost(spec).params
    return spec.in_channels * spec.in_size**2
