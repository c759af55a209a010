"""The subnets of a step get the gradients that they would have alone, from fewer computations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spaces import get_space
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.population import sample
from supernet.config import SupernetConfig
from supernet.descent import Descent
from supernet.distributed import SingleWorld
from supernet.elastic import ElasticBias, ElasticConvLayer, LayerOptions
from supernet.families import build_supernet
from supernet.samplers import Draw, Role
from supernet.schedule import Rates
from supernet.shared_prefix import SharedPrefix
from supernet.updates import UPDATES
from tests.supernet.tiny_mobilenet import tiny_mobilenet_space
from tests.supernet.tiny_vit import tiny_vit_space

SPACES = ("mobilenetv3_digits", "resnet_digits", "elasticvit_digits")
# Another rounding in float32 moves quantised values to other codes, so the exact case is float64.
EXACT, ROUNDED = (32, "float64", 1e-9), (8, "float32", 0.01)


def setting(name, bits):
    """A supernet, four configs of one resolution with the smallest first, and images."""
    space = tiny_vit_space("layer") if name == "layer_norm" else get_space(name)
    size = int(space.max_config()["resolution"])
    space = space.restrict(choices={"resolution": (size,), "*.w_bits": (bits,)})
    torch.manual_seed(4)
    supernet = build_supernet(space).train()
    images = torch.rand(8, space.family.input_channels, size, size)
    rows = sample(space, 2, np.random.default_rng(1))
    random = [space.from_indices(row) for row in rows]
    # Also narrow before wide: what is known is then too little.
    configs = [space.min_config(), space.max_config(), *random, space.max_config()]
    supernet.calibrate([(config, images) for config in configs])
    return supernet, configs, images


def gradients(supernet, configs, images, shares):
    supernet.zero_grad(set_to_none=True)
    labels = torch.arange(len(images)) % supernet.space.family.classes

    def learn():
        for config in configs:
            supernet.activate(config)
            torch.autograd.backward(F.cross_entropy(supernet(images), labels))

    if shares:
        with supernet.shared_prefix() as prefix:
            prefix.share(images)
            learn()
            prefix.backward()
    else:
        learn()
    return {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "bits", "dtype", "limit"),
    [*((name, *how) for name in SPACES for how in (EXACT, ROUNDED)), ("layer_norm", *EXACT)],
)
def test_gradients_are_those_of_separate_subnets(name, bits, dtype, limit):
    supernet, configs, images = setting(name, bits)
    supernet, images = supernet.to(getattr(torch, dtype)), images.to(getattr(torch, dtype))
    alone = gradients(supernet, configs, images, shares=False)
    shared = gradients(supernet, configs, images, shares=True)
    assert shared.keys() == alone.keys()
    for key, gradient in alone.items():
        error = (shared[key] - gradient).norm() / (gradient.norm() + 1e-6)
        assert error < limit, key


@pytest.fixture
def computed(monkeypatch):
    """Site -> how often it was computed."""
    counts = Counter()
    compute = ElasticConvLayer._compute

    def counting(self, x):
        counts[self.spec.site] += 1
        return compute(self, x)

    monkeypatch.setattr(ElasticConvLayer, "_compute", counting)
    return counts


def step(supernet, configs, images, **options):
    labels = torch.arange(len(images)) % supernet.space.family.classes
    config = SupernetConfig.model_validate({"batch_size": len(images), **options})
    descent = Descent(supernet, config, SingleWorld())
    draws = [Draw(config, Role.MAX if not i else Role.RANDOM) for i, config in enumerate(configs)]
    descent.step(draws, images, labels, Rates(1e-3, 1e-3), progress=0.5)


def test_a_step_computes_once_what_its_subnets_have_in_common(computed):
    supernet, (smallest, largest, *_), images = setting("mobilenetv3_digits", 32)
    computed.clear()
    step(supernet, [largest, smallest, largest], images)
    # Every stem is a part of the largest one's, and the last config is the first one again, up to
    # the first gate.
    assert computed["stem"] == 1
    first = next(site for site in computed if site != "stem")
    assert computed[first] < 3
    assert computed["head"] == 3


def test_fewer_channels_of_a_convolution_with_a_bias_are_a_part_of_more(computed):
    wide = LayerSpec("c", Operator.CONV, 8, 16, 4, 4, kernel=3, activation=Activation.RELU)
    layer = ElasticConvLayer(LayerOptions(wide, (3,)), norm=ElasticBias(16))
    torch.nn.init.normal_(layer.norm.bias)
    x = torch.randn(2, 8, 4, 4)
    found = {}
    for prefix in (None, SharedPrefix()):
        layer.prefix = prefix
        layer.zero_grad()
        if prefix is not None:
            prefix.share(x)
        for channels in (16, 8):
            layer.activate(replace(wide, out_channels=channels))
            layer(x).square().sum().backward()
        if prefix is not None:
            prefix.backward()
        found[prefix is not None] = [p.grad.clone() for p in layer.parameters()]
    assert computed["c"] == 2 + 1
    for shared, alone in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(shared, alone)


def test_a_narrower_depthwise_convolution_is_a_part_of_the_wider_one(computed):
    supernet, (_, largest, *_), images = setting("mobilenetv3_digits", 32)
    expansions = supernet.space.dimensions[supernet.space.positions["stage1.block0.expansion"]]
    narrower = largest.space.config(
        {**dict(largest), "stage1.block0.expansion": expansions.choices[0]}
    )
    alone = gradients(supernet, [largest, narrower], images, shares=False)
    computed.clear()
    shared = gradients(supernet, [largest, narrower], images, shares=True)
    assert computed["stage1.block0.expand"] == computed["stage1.block0.depthwise"] == 1
    assert computed["stage1.block0.project"] == 2
    for key, gradient in alone.items():
        torch.testing.assert_close(shared[key], gradient, rtol=1e-3, atol=1e-5)


def test_what_follows_a_common_shortcut_is_common_too(computed):
    torch.manual_seed(4)
    space = tiny_mobilenet_space((8,), (8,), (32,))
    space = space.restrict(choices={"stage1.*.se": (0,), "stage1.*.kernel": (3,)})
    supernet = build_supernet(space).train()
    largest, smallest = space.max_config(), space.min_config()
    images = torch.rand(8, 1, 16, 16)
    assert supernet.layers()["stage1.block0.project"].spec.residual
    alone = gradients(supernet, [largest, smallest], images, shares=False)
    computed.clear()
    shared = gradients(supernet, [largest, smallest], images, shares=True)
    # The second has one block less in this stage, and fewer channels in the next.
    assert computed["stage1.block0.project"] == 1
    assert computed["stage2.block0.expand"] == 2
    for key, gradient in alone.items():
        torch.testing.assert_close(shared[key], gradient, rtol=1e-3, atol=1e-5)
    computed.clear()
    deep = space.config({**dict(smallest), "stage1.depth": 2})
    gradients(supernet, [largest, deep], images, shares=True)
    assert computed["stage1.block1.project"] == computed["stage2.block0.expand"] == 1


def test_nothing_is_shared_where_weights_change_between_the_configs(computed):
    supernet, configs, images = setting("mobilenetv3_digits", 8)
    computed.clear()
    step(supernet, configs, images, update="per_precision", objective="task")
    assert computed["stem"] == len(configs)
    assert UPDATES.get("per_precision").updates_between


def test_after_a_step_the_supernet_computes_everything_itself(computed):
    supernet, configs, images = setting("mobilenetv3_digits", 32)
    step(supernet, configs, images)
    computed.clear()
    supernet.activate(configs[0])
    first = supernet(images)
    with torch.no_grad():
        supernet.stem.conv.weight.mul_(-1)
    assert not torch.equal(supernet(images), first)
    assert computed["stem"] == 2
