from __future__ import annotations

import pytest
import torch

from spaces.quant_scheme import Granularity, QuantScheme, Symmetry, activation_scheme
from supernet.quantizers import PerFormQuantizer, fake_quantize
from supernet.quantizers.calibration import calibrated


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_calibration_beats_the_full_range(bits):
    scheme = QuantScheme(bits, Granularity.PER_CHANNEL, Symmetry.SYMMETRIC, signed=True)
    weight = torch.randn(16, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer = PerFormQuantizer([scheme], tuple(weight.shape))
    quantizer.calibrate(weight, scheme)
    largest = weight.abs().amax((1, 2, 3), keepdim=True) / scheme.qmax
    naive = fake_quantize(weight, largest, torch.zeros(()), scheme)
    error = (quantizer(weight, scheme) - weight).abs().pow(2.4).mean()
    full = (naive - weight).abs().pow(2.4).mean()
    assert error <= full * (1 if bits == 8 else 0.95)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_inputs_use_the_signs_that_they_have(bits):
    """A range that is used whole has half the step of one with an unused sign."""
    x = torch.rand(1, 4096, generator=torch.Generator().manual_seed(0))
    steps = []
    for nonnegative in (False, True):
        scheme = activation_scheme(bits, "symmetric", nonnegative)
        scale, zero_point = calibrated(x, scheme)
        assert not zero_point.any()
        codes = torch.round(x / scale).clamp(scheme.qmin, scheme.qmax)
        assert (int(codes.min()), int(codes.max())) == (0, scheme.qmax)
        steps.append(float(scale))
    assert steps[1] < 0.6 * steps[0]
