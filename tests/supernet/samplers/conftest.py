"""A space with every kind of dimension that samplers treat in a way of its own."""

from __future__ import annotations

import pytest

from spaces.dimension import Dimension, DimensionKind
from spaces.families import Family, FamilySettings, Slot
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import Granularity, LayerPrecision, QuantScheme, Symmetry
from spaces.space import SearchSpace


class PlainSettings(FamilySettings):
    resolution: tuple[int, ...] = (8, 12)
    width: tuple[int, ...] = (16, 32, 48)
    depth: tuple[int, ...] = (1, 2, 3, 4)
    expansion: tuple[int, ...] = (1, 2)
    w_bits: tuple[int, ...] = (2, 4, 8)
    a_bits: tuple[int, ...] = (4, 8)
    symmetry: tuple[str, ...] = ("symmetric", "asymmetric")


class Plain(Family):
    """1x1 convolutions of one width, then a classifier; bits for each, one symmetry for all."""

    name = "plain"
    settings_type = PlainSettings
    settings: PlainSettings
    input_channels = 1
    classes = 10

    def dimensions(self):
        s, kind = self.settings, DimensionKind
        found = [
            Dimension("resolution", kind.RESOLUTION, s.resolution),
            Dimension("width", kind.WIDTH, s.width),
            Dimension("depth", kind.DEPTH, s.depth),
        ]
        for j in range(max(s.depth)):
            found += [
                Dimension(f"block{j}.expansion", kind.EXPANSION, s.expansion),
                Dimension(f"block{j}.conv.w_bits", kind.W_BITS, s.w_bits),
                Dimension(f"block{j}.conv.a_bits", kind.A_BITS, s.a_bits),
            ]
        return (*found, Dimension("weight.symmetry", kind.SYMMETRY, s.symmetry))

    def slots(self):
        reads = ("resolution", "width", "weight.symmetry")
        own = ("expansion", "conv.w_bits", "conv.a_bits")
        blocks = [
            Slot(
                f"block{j}",
                (*reads, *(f"block{j}.{name}" for name in own)),
                lambda values, j=j: (self.block(values, j),),
                ("depth", j + 1),
            )
            for j in range(max(self.settings.depth))
        ]
        return (*blocks, Slot("tail", ("width",), self.tail))

    def block(self, values, j):
        width, size = int(values["width"]), int(values["resolution"])
        precision = LayerPrecision(
            QuantScheme(
                int(values[f"block{j}.conv.w_bits"]),
                Granularity.PER_CHANNEL,
                Symmetry(values["weight.symmetry"]),
                True,
            ),
            QuantScheme(
                int(values[f"block{j}.conv.a_bits"]),
                Granularity.PER_TENSOR,
                Symmetry.ASYMMETRIC,
                False,
            ),
        )
        out = width * int(values[f"block{j}.expansion"])
        site = f"block{j}.conv"
        return LayerSpec(site, Operator.CONV, width, out, size, size, precision=precision)

    def tail(self, values):
        return (LayerSpec("classifier", Operator.LINEAR, int(values["width"]), 10),)


@pytest.fixture(scope="session")
def plain():
    """Settings -> space."""
    return lambda **settings: SearchSpace("plain", Plain(PlainSettings(**settings)))


@pytest.fixture(scope="session")
def space(plain):
    return plain()
