"""Learned quantisers of one tensor, by the policy of what their schemes share."""

from __future__ import annotations

from supernet.quantizers.base import QUANTIZERS, FakeQuantizer, IntegerTensor
from supernet.quantizers.learned_step import fake_quantize
from supernet.quantizers.per_form import PER_FORM, PerFormQuantizer
from supernet.quantizers.shared_8bit import Shared8BitQuantizer
from supernet.quantizers.shared_pow2 import SharedPow2Quantizer, narrow_codes

__all__ = [
    "PER_FORM",
    "QUANTIZERS",
    "FakeQuantizer",
    "IntegerTensor",
    "PerFormQuantizer",
    "Shared8BitQuantizer",
    "SharedPow2Quantizer",
    "fake_quantize",
    "narrow_codes",
]
