from __future__ import annotations

import numpy as np

from spaces.dimension import DimensionKind
from spaces.quant_scheme import FORM_DIMENSIONS


def test_skipped_blocks_do_not_count_in_the_key(space):
    shallow = space.max_config().to_json() | {"stage1.depth": 1}
    other = shallow | {"stage1.block2.kernel": 3, "stage1.block1.project.w_bits": 8}
    assert space.config(shallow).key == space.config(other).key
    assert space.config(shallow).key != space.config(shallow | {"stage1.block0.kernel": 3}).key


def test_input_bits_of_a_float_layer_do_not_count(elastic):
    floating = elastic.max_config().to_json()
    assert floating["head.w_bits"] == 32
    same = elastic.config(floating | {"head.a_bits": 4})
    assert same == elastic.config(floating)
    assert same["head.a_bits"] == 2
    quantised = floating | {"head.w_bits": 4}
    assert elastic.config(quantised | {"head.a_bits": 4}) != elastic.config(quantised)
    # A block that the depth skips has none that count either.
    shallow = floating | {"stage1.depth": 1, "stage1.block2.expand.w_bits": 2}
    assert elastic.config(shallow) == elastic.config(shallow | {"stage1.block2.expand.a_bits": 4})


def test_the_form_of_a_float_network_does_not_count(elastic):
    form = {
        "weight.granularity": "per_group64",
        "weight.symmetry": "asymmetric",
        "activation.symmetry": "asymmetric",
    }
    floating = {n: v for n, v in elastic.max_config().items() if n not in form}
    plain = elastic.config(floating)
    assert plain["weight.granularity"] == "per_tensor"
    # A block that the depth skips has no layer.
    skipped = {"stage1.depth": 1, "stage1.block2.expand.w_bits": 2}
    for name, value in form.items():
        assert elastic.config(floating | {name: value}) == plain
        shallow = floating | skipped
        assert elastic.config(shallow | {name: value}) == elastic.config(
            shallow | {n: "per_tensor" if "gran" in n else "symmetric" for n in form}
        )
        quantised = {**plain, "head.w_bits": 4}
        assert elastic.config(quantised | {name: value}) != elastic.config(quantised)


def test_one_subnet_has_one_key(elastic):
    """Layers are equal where keys are equal, in float32 and not, and nowhere else."""
    rng = np.random.default_rng(3)
    rows = rng.integers(0, elastic.cardinalities, (40, len(elastic.names)))
    bits = [i for i, d in enumerate(elastic.dimensions) if d.kind is DimensionKind.W_BITS]
    rows[:20, bits] = elastic.cardinalities[bits] - 1
    rows = np.concatenate([rows, rows])
    form = [elastic.position(name) for name in FORM_DIMENSIONS]
    rows[40:, form] = (rows[40:, form] + 1) % elastic.cardinalities[form]
    configs = [elastic.from_indices(row) for row in rows]
    pairs = list(zip(configs[:40], configs[40:], strict=True))
    same = [elastic.layer_specs(first) == elastic.layer_specs(second) for first, second in pairs]
    assert same == [True] * 20 + [False] * 20
    assert [first.key == second.key for first, second in pairs] == same
