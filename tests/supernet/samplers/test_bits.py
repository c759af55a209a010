from __future__ import annotations

import numpy as np

from spaces.dimension import DimensionKind
from supernet.samplers import SandwichSampler
from supernet.samplers.bit_layers import bit_dimensions
from supernet.samplers.columns import BITS, columns


def test_the_largest_has_the_most_bits_and_the_smallest_the_fewest(space):
    bits = columns(space, BITS) & (space.cardinalities > 1)
    for step in range(20):
        largest, *_, smallest = SandwichSampler(space, 1, seed=0).sample(step)
        assert (largest.config.indices == space.cardinalities - 1)[bits].all()
        assert not smallest.config.indices[bits].any()


def test_a_dimension_of_bits_knows_its_layers_and_their_size(space):
    weights = bit_dimensions(space, DimensionKind.W_BITS)
    assert [d.sites for d in weights] == [(f"block{j}.conv",) for j in range(4)]
    largest = {s.site: s for s in space.layer_specs(space.max_config())}
    for dimension in weights:
        spec = largest[dimension.sites[0]]
        assert dimension.size == np.prod(spec.weight_shape) + spec.out_channels
    inputs = bit_dimensions(space, DimensionKind.A_BITS)
    assert {d.size for d in inputs} == {48 * 12 * 12}
    assert [d.choices for d in inputs] == [(4, 8)] * 4


def test_a_layer_of_fixed_bits_is_not_drawn(plain):
    fixed = plain(w_bits=(8,))
    assert bit_dimensions(fixed, DimensionKind.W_BITS) == []
    assert len(bit_dimensions(fixed, DimensionKind.A_BITS)) == 4


def test_inputs_have_their_layers_also_where_the_largest_is_in_float32(plain):
    integers, mixed = plain(w_bits=(2, 8)), plain(w_bits=(2, 8, 32))
    found = [bit_dimensions(space, DimensionKind.A_BITS) for space in (integers, mixed)]
    assert found[0] == found[1]
    assert all(dimension.sites and dimension.size for dimension in found[1])
