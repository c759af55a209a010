from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from spaces.layer_spec import LayerSpec, Operator
from supernet.elastic import ElasticConvLayer, LayerOptions
from supernet.elastic.switched import SwitchedModule

WIDE = LayerSpec("c", Operator.CONV, 8, 16, 4, 4, kernel=3)


def test_parameters_and_modules_are_registered_as_ever():
    module = SwitchedModule()
    with pytest.raises(AttributeError):
        _ = module.spec
    module.weight = nn.Parameter(torch.zeros(1))
    module.inner = nn.Linear(1, 1)
    module.register_buffer("seen", torch.zeros(1))
    module.active = 3
    assert set(module.state_dict()) == {"weight", "inner.weight", "inner.bias", "seen"}
    assert module.active == 3


def test_a_copy_has_the_same_switches_of_its_own():
    layer = ElasticConvLayer(LayerOptions(WIDE, (3,)))
    layer.activate(LayerSpec("c", Operator.CONV, 8, 8, 4, 4, kernel=3))
    other = copy.deepcopy(layer)
    assert other.spec == other.conv.spec == layer.spec
    other.activate(WIDE)
    assert layer.spec.out_channels == layer.norm.active == 8
    assert other.norm.active == 16
