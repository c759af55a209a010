"""One 8-bit step per tensor, whatever part of it a subnet uses (SpaceEvo, Wang et al. 2023).

There an operator has one weight scale and one pair of scale and offset for its input. Here an
elastic convolution has one weight scale for each kernel size, as a small kernel is a learned map
of a large one and a tensor of its own.
"""

from __future__ import annotations

from dataclasses import replace

from spaces.quant_scheme import Granularity, QuantScheme
from supernet.errors import SupernetConfigError
from supernet.quantizers.base import QUANTIZERS, FakeQuantizer

_BITS = 8


@QUANTIZERS.register("shared_8bit")
class Shared8BitQuantizer(FakeQuantizer):
    """All schemes, of 8 bits and one symmetry, own one scalar scale together."""

    def owner(self, scheme: QuantScheme) -> QuantScheme:
        if scheme.bits != _BITS:
            raise SupernetConfigError(
                f"quantiser shared_8bit has one 8-bit scale: scheme {scheme.key!r} needs another; "
                "allowed: schemes of 8 bits, or the quantiser per_form"
            )
        other = {s.symmetry for s in self.schemes} - {scheme.symmetry}
        if other:
            raise SupernetConfigError(
                f"quantiser shared_8bit: {scheme.key!r} cannot share a scale with "
                f"{other.pop()} schemes; allowed: one symmetry, or the quantiser per_form"
            )
        return replace(scheme, granularity=Granularity.PER_TENSOR, group_size=None)
