from __future__ import annotations

import pytest

from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import W8A8
from supernet.elastic import LayerOptions
from supernet.errors import SupernetConfigError


def test_a_spec_of_another_site_operator_or_scheme_does_not_fit():
    big = LayerSpec("a.expand", Operator.CONV, 8, 8, 4, 4)
    options = LayerOptions(big, (1,))
    options.check(big)
    for other in (
        LayerSpec("b.expand", Operator.CONV, 8, 8, 4, 4),
        LayerSpec("a.expand", Operator.LINEAR, 8, 8, 4, 4),
        LayerSpec("a.expand", Operator.CONV, 8, 8, 4, 4, precision=W8A8),
    ):
        with pytest.raises(SupernetConfigError, match=other.site):
            options.check(other)
