"""Separate steps and offsets for every scheme: EQ-Net's parameter store (Xu et al. 2023).

Only the float tensor is common. Here groups of inputs have scales too, and activations count their
elements per sample in the gradient's weight, so that the batch size does not change the rate.
"""

from __future__ import annotations

from spaces.quant_scheme import QuantScheme
from supernet.quantizers.base import QUANTIZERS, FakeQuantizer

PER_FORM = "per_form"


@QUANTIZERS.register(PER_FORM)
class PerFormQuantizer(FakeQuantizer):
    """Every scheme owns its scale and zero point."""

    def owner(self, scheme: QuantScheme) -> QuantScheme:
        return scheme
