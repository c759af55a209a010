"""What the elastic layer at one site must be able to become."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import QuantScheme
from supernet.errors import SupernetConfigError


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """The store of one site.

    Attributes:
        largest: Spec with the most channels and the largest kernel; it sizes the store.
        kernels: Kernel sizes in pixels, ascending; the last is the largest spec's.
        weight_schemes: Schemes that the weight may have, besides float32.
        activation_schemes: Schemes that the input may have, besides float32.
    """

    largest: LayerSpec
    kernels: tuple[int, ...]
    weight_schemes: tuple[QuantScheme, ...] = ()
    activation_schemes: tuple[QuantScheme, ...] = ()

    def check(self, spec: LayerSpec) -> None:
        """Raise SupernetConfigError unless `spec` is a part of this store."""
        big = self.largest
        if (
            spec.site != big.site
            or spec.operator is not big.operator
            or spec.in_channels > big.in_channels
            or spec.out_channels > big.out_channels
            or spec.hidden_channels > big.hidden_channels
            or spec.heads > big.heads
            or spec.in_channels * big.heads > big.in_channels * spec.heads
            or spec.out_channels * big.heads > big.out_channels * spec.heads
            or spec.kernel not in self.kernels
            or spec.precision.weight not in (None, *self.weight_schemes)
            or spec.precision.activation not in (None, *self.activation_schemes)
        ):
            schemes = [s.key for s in (*self.weight_schemes, *self.activation_schemes)]
            raise SupernetConfigError(
                f"{spec} does not fit in the supernet, which has at most {big}, "
                f"kernels {self.kernels} and schemes {schemes}"
            )
