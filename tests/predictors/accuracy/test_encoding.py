from __future__ import annotations

import numpy as np

from predictors.accuracy.encoding import (
    ConfigEncoding,
    Part,
    is_float32,
    part_of,
    rounding_noise,
    without_quantisation,
)
from spaces.dimension import DimensionKind
from spaces.population import sample
from tests.predictors.accuracy.perceptron import perceptron_space

BITS = (2, 4, 8, 32)


def columns(space, config, parts=tuple(Part)):
    """The names of the columns that are 1."""
    encoding = ConfigEncoding(space, parts)
    codes = encoding(config.indices[None])[0]
    assert codes.shape == (len(encoding.names),)
    assert set(np.unique(codes)) <= {0.0, 1.0}
    return {name for name, code in zip(encoding.names, codes, strict=True) if code}


def config(space, **changes):
    values = dict(space.min_config()) | {
        "weight.granularity": "per_channel",
        "activation.symmetry": "asymmetric",
        "depth": 2,
        "block0.w_bits": 4,
        "block1.a_bits": 8,
        "classifier.w_bits": 32,
    }
    return space.config(values | changes)


def test_every_active_choice_is_one_column():
    space = perceptron_space(BITS)
    assert columns(space, config(space)) == {
        "weight.granularity=per_channel",
        "weight.symmetry=symmetric",
        "activation.symmetry=asymmetric",
        "width=6",
        "depth=2",
        "block0.hidden=6",
        "block0.w_bits=4",
        "block0.a_bits=2",
        "block1.hidden=6",
        "block1.w_bits=2",
        "block1.a_bits=8",
    }


def test_a_float32_subnet_has_neither_form_nor_bits():
    space = perceptron_space(BITS)
    float32 = {name: 32 for name in space.names if name.endswith(".w_bits")}
    assert not columns(space, config(space, **float32), (Part.FORM, Part.BITS))
    almost = float32 | {"block1.w_bits": 8}
    assert len(columns(space, config(space, **almost), (Part.FORM,))) == 3
    # Only a skipped block has bits.
    skipped = almost | {"depth": 1}
    assert not columns(space, config(space, **skipped), (Part.FORM, Part.BITS))
    rows = [config(space, **changes).indices for changes in (float32, almost, skipped)]
    assert is_float32(space, np.stack(rows)).tolist() == [True, False, True]


def test_parts_are_the_columns_of_their_kinds():
    space = perceptron_space(BITS)
    widths = {part: len(ConfigEncoding(space, (part,)).names) for part in Part}
    # Two choices of each of three; three bit-widths of each of eight tensors; 4 + 3 + 3 * 3.
    assert widths == {Part.FORM: 6, Part.BITS: 24, Part.ARCHITECTURE: 16}
    population = sample(space, 50, np.random.default_rng(0))
    together = ConfigEncoding(space, tuple(Part))(population)
    apart = [ConfigEncoding(space, (part,))(population).sum() for part in Part]
    assert together.sum() == sum(apart)
    assert {part_of(kind) for kind in DimensionKind} == set(Part)


def test_a_space_without_form_and_activation_bits(space):
    population = sample(space, 20, np.random.default_rng(0))
    assert ConfigEncoding(space, (Part.FORM,))(population).shape == (20, 0)
    bits = [d for d in space.dimensions if d.kind is DimensionKind.W_BITS]
    kept = sum(choice != 32 for d in bits for choice in d.choices)
    assert ConfigEncoding(space, (Part.BITS,))(population).shape == (20, kept)


def test_architectures_are_equal_without_their_quantisation():
    space = perceptron_space(BITS)
    first, second = config(space), config(space, **{"block0.w_bits": 8, "classifier.w_bits": 8})
    population = np.stack([first.indices, second.indices])
    bare = without_quantisation(space, population)
    assert np.array_equal(bare[0], bare[1])
    encoding = ConfigEncoding(space, (Part.ARCHITECTURE,))
    assert np.array_equal(encoding(bare), encoding(population))


def test_every_bit_quarters_the_noise_of_its_own_tensor():
    space = perceptron_space((2, 3, 8, 32))
    (noise,) = rounding_noise(space, config(space, **{"block0.w_bits": 3}).indices[None])
    tensors = [d.name for d in space.dimensions if d.kind.value.endswith("_bits")]
    # Two levels: 1. The third block is skipped, the classifier is in float32.
    assert dict(zip(tensors, noise, strict=True)) == {
        "block0.w_bits": 1 / 16,
        "block0.a_bits": 1 / 4,
        "block1.w_bits": 1 / 4,
        "block1.a_bits": 4.0**-7,
        "block2.w_bits": 0,
        "block2.a_bits": 0,
        "classifier.w_bits": 0,
        "classifier.a_bits": 0,
    }
