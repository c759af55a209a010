from __future__ import annotations

import pytest
import torch

from spaces.quant_scheme import U8_ACTIVATION, activation_scheme, weight_scheme
from supernet.errors import SupernetConfigError
from supernet.quantizers import Shared8BitQuantizer


def test_one_scale_serves_every_granularity_and_part_of_a_weight():
    schemes = [weight_scheme(8, g) for g in ("per_tensor", "per_channel", "per_group4")]
    weight = torch.randn(6, 9, 3, 3)
    quantizer = Shared8BitQuantizer(schemes, tuple(weight.shape))
    assert [p.shape for p in quantizer.parameters()] == [()]
    for scheme in schemes:
        quantizer.calibrate(weight, scheme)
        part = weight[:3, :5]
        integers = quantizer.export_int(part, scheme)
        assert torch.equal(integers.dequantize(), quantizer(part, scheme))
        assert torch.equal(quantizer(weight, scheme)[:3, :5], integers.dequantize())


def test_activations_have_one_scale_and_offset():
    quantizer = Shared8BitQuantizer([U8_ACTIVATION], None)
    assert sum(p.numel() for p in quantizer.parameters()) == 2
    x = torch.randn(4, 3, 5, 5) + 1
    quantizer.calibrate(x, U8_ACTIVATION)
    assert torch.equal(
        quantizer.export_int(x, U8_ACTIVATION).dequantize(), quantizer(x, U8_ACTIVATION)
    )


@pytest.mark.parametrize(
    ("schemes", "message"),
    [
        ([weight_scheme(8), weight_scheme(4)], r"s4\.per_channel\.symmetric.*schemes of 8 bits"),
        ([weight_scheme(8), weight_scheme(8, "per_tensor", "asymmetric")], "one symmetry"),
        ([activation_scheme(4)], r"u4\.per_tensor\.asymmetric"),
    ],
)
def test_other_widths_and_mixed_symmetry_are_refused(schemes, message):
    with pytest.raises(SupernetConfigError, match=message):
        Shared8BitQuantizer(schemes, None if "u4" in message else (4, 5))
