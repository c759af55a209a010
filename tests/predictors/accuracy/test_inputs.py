from __future__ import annotations

import numpy as np
import pytest

from predictors.accuracy.encoding import Part
from predictors.accuracy.inputs import NetworkInputs
from spaces.population import sample
from tests.predictors.accuracy.perceptron import perceptron_space


def test_every_block_varies_alike_and_a_part_alone_does_not_change_it(quantised_space):
    population = sample(quantised_space, 4000, np.random.default_rng(1))
    total = 0.0
    # With the architecture come three logarithms, with the bits two mean steps.
    for part, blocks in ((Part.FORM, 1), (Part.BITS, 2), (Part.ARCHITECTURE, 2)):
        inputs = NetworkInputs(quantised_space, (part,))
        values = inputs(population)
        assert values.shape == (4000, len(inputs.columns))
        assert set(inputs.columns) == {part}
        assert inputs.blocks == blocks
        variance = values.var(axis=0).sum()
        assert variance == pytest.approx(blocks, rel=0.3)
        assert (values**2).sum(axis=1).mean() == pytest.approx(blocks, rel=0.3)
        total += variance
    together = NetworkInputs(quantised_space, tuple(Part))(population)
    assert together.var(axis=0).sum() == pytest.approx(total)


def test_the_scale_is_that_of_the_space_not_of_the_population(quantised_space):
    population = sample(quantised_space, 40, np.random.default_rng(2))
    inputs = NetworkInputs(quantised_space, tuple(Part))
    assert np.array_equal(inputs(population)[:5], inputs(population[:5]))
    again = NetworkInputs(perceptron_space(), tuple(Part))
    assert np.array_equal(again(population), inputs(population))


def test_narrower_tensors_have_larger_steps():
    space = perceptron_space((2, 3, 8, 32))
    inputs = NetworkInputs(space, (Part.BITS,))

    def steps(bits):
        weights = {name: bits for name in space.names if name.endswith(".w_bits")}
        read = {name: min(bits, 8) for name in space.names if name.endswith(".a_bits")}
        return inputs(space.config(dict(space.min_config()) | weights | read).indices[None])[0, -2:]

    by_bits = np.stack([steps(bits) for bits in (32, 8, 3, 2)])
    assert (np.diff(by_bits, axis=0) > 0).all()
    # The step of 2 bits is twice that of 3.
    assert (by_bits[3] - by_bits[0]) / (by_bits[2] - by_bits[0]) == pytest.approx([2, 2])


def test_larger_subnets_have_larger_quantities(quantised_space):
    ends = np.stack([quantised_space.min_config().indices, quantised_space.max_config().indices])
    least, most = NetworkInputs(quantised_space, (Part.ARCHITECTURE,))(ends)[:, -3:]
    assert (most > least).all()


def test_parts_that_a_space_lacks_are_no_columns(space):
    population = sample(space, 5, np.random.default_rng(0))
    for parts in ((), (Part.FORM,)):
        inputs = NetworkInputs(space, parts)
        assert inputs(population).shape == (5, 0)
        assert (inputs.columns, inputs.blocks) == ([], 0)
