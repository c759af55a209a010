from __future__ import annotations

from spaces import Activation, LayerSpec, Operator
from spaces.quant_scheme import W8A8


def test_json_keeps_every_field():
    spec = LayerSpec(
        "stage1.block0.conv2", Operator.CONV, 16, 24, 9, 9, 3, precision=W8A8, residual=True,
        residual_activation=Activation.RELU,
    )  # fmt: skip
    projection = LayerSpec("stage1.block0.projection", Operator.CONV, 16, 24, 9, 5, 1, 2,
                           shortcut=True)  # fmt: skip
    pool = LayerSpec("pool", Operator.MAX_POOL, 16, 16, 9, 5, 3, 2)
    for one in (spec, projection, pool):
        again = LayerSpec.from_json(one.to_json())
        assert again == one
        assert type(again.residual_activation) is Activation


def test_json_of_bundles_without_projections_is_read():
    spec = LayerSpec("a.expand", Operator.CONV, 16, 24, 9, 9, residual=True)
    data = spec.to_json()
    del data["shortcut"], data["residual_activation"]
    assert LayerSpec.from_json(data) == spec


def test_the_block_is_all_but_the_last_part_of_the_site():
    assert LayerSpec("a.b.conv1", Operator.CONV, 8, 8).block == "a.b"
    assert LayerSpec("stem", Operator.CONV, 8, 8).block == ""
