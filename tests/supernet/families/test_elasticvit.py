from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spaces import get_space
from spaces.cost import cost, tensor_layout
from spaces.layer_spec import Operator
from spaces.population import sample
from supernet.activations import apply_activation
from supernet.data import resize
from supernet.elastic import (
    ElasticAttention,
    ElasticBatchNorm2d,
    ElasticBias,
    ElasticLayerNorm,
    ElasticMlp,
)
from supernet.families import ElasticViTSupernet, build_supernet
from supernet.recalibration import recalibrate
from tests.supernet.tiny_vit import tiny_vit_space

LAYER_NORM = tiny_vit_space("layer")
SPACE = tiny_vit_space()
FORMS = tiny_vit_space(
    w_bits=(2, 8),
    a_bits=(4, 8),
    granularity=("per_tensor", "per_channel", "per_group16"),
    weight_symmetry=("symmetric", "asymmetric"),
    activation_symmetry=("symmetric", "asymmetric"),
)
seeds = given(seed=st.integers(0, 10**6))
few = settings(max_examples=8, deadline=None)


def calibrated(space, digits) -> ElasticViTSupernet:
    """Random weights, gammas of both signs, biases of unit size, calibrated quantisers."""
    torch.manual_seed(0)
    found = build_supernet(space)
    assert isinstance(found, ElasticViTSupernet)
    with torch.no_grad():
        for norm in found.norms():
            norm.weight.copy_(torch.randn_like(norm.weight).sign())
            norm.bias.normal_(std=0.2)
        for name, parameter in found.named_parameters():
            if name.endswith("position"):
                parameter.normal_()
            elif name.endswith("project.conv.weight") and not parameter.any():
                parameter.normal_(std=0.2)
        for layer in found.modules():
            if isinstance(layer, ElasticLayerNorm):
                layer.weight.normal_()
            if isinstance(layer, ElasticLayerNorm | ElasticBias):
                layer.bias.normal_(std=0.2)
    images = digits.train.images[:128]
    found.calibrate(
        (config, resize(images, int(config["resolution"])))
        for config in (space.max_config(), space.min_config())
    )
    return found


@pytest.fixture(scope="module")
def supernet(digits) -> ElasticViTSupernet:
    return calibrated(SPACE, digits)


@pytest.fixture(scope="module")
def normed(digits) -> ElasticViTSupernet:
    """With LayerNorm in the transformer blocks, its gains, shifts and all biases random."""
    return calibrated(LAYER_NORM, digits)


@pytest.fixture(scope="module")
def every_form(digits) -> ElasticViTSupernet:
    """With weights and inputs of any form."""
    return calibrated(FORMS, digits)


def random_config(seed: int, bits: int | None = None, space=SPACE):
    config = space.from_indices(sample(space, 1, np.random.default_rng(seed))[0])
    if bits is None:
        return config
    return space.config({**config, **{n: bits for n in space.names if n.endswith("w_bits")}})


def activated(supernet, config, digits):
    supernet.activate(config)
    recalibrate(supernet, digits.train.images[:128])
    return resize(digits.selection.images[:32], supernet.resolution)


def test_layers_are_the_sites_of_the_largest_config(supernet):
    sites = [
        spec.site
        for spec in SPACE.layer_specs(SPACE.max_config())
        if spec.operator is not Operator.GLOBAL_POOL
    ]
    assert list(supernet.layers()) == sites


@pytest.mark.parametrize("which", ["max", "min"])
def test_every_resolution_of_the_shipped_space_gives_logits(which):
    space = get_space("elasticvit_digits")
    supernet = build_supernet(space)
    base = space.max_config() if which == "max" else space.min_config()
    for resolution in space.dimensions[space.position("resolution")].choices:
        supernet.activate(space.config({**base, "resolution": resolution}))
        assert supernet(torch.rand(2, 1, resolution, resolution)).shape == (2, 10)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_transformer_block_begins_as_its_shortcut_and_learns(norm):
    torch.manual_seed(0)
    found = build_supernet(tiny_vit_space(norm)).train()
    blocks = [b for b in found.blocks if isinstance(b, ElasticAttention | ElasticMlp)]
    assert len(blocks) == 8
    images, labels = torch.rand(8, 1, 24, 24), torch.arange(8)
    optimizer = torch.optim.AdamW(found.parameters(), lr=1e-2)
    for block in blocks:
        spec = block.project.spec
        x = torch.randn(2, spec.out_channels, spec.out_size, spec.out_size)
        assert torch.equal(block(x), x)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(found(images), labels).backward()
        optimizer.step()
    # After a step the layers in front learn too.
    for block in blocks:
        spec = block.project.spec
        x = torch.randn(2, spec.out_channels, spec.out_size, spec.out_size)
        assert not torch.equal(block(x), x)
        first = block.qkv if isinstance(block, ElasticAttention) else block.expand
        assert first.conv.weight.grad.any()


def test_depth_keeps_the_first_blocks(supernet):
    supernet.activate(SPACE.config({**SPACE.max_config(), "stage2.depth": 1, "stem.depth": 1}))
    present = {block.site for block in supernet.blocks if block.present}
    assert {"stage2.entry", "stage2.block0.attention", "stage2.block0.mlp"} <= present
    assert not {"stem.block1", "stage2.block1.attention", "stage2.block1.mlp"} & present
    assert "stage3.block1.mlp" in present


@few
@seeds
def test_activation_copies_no_weight(supernet, seed):
    parameters = {n: p.data_ptr() for n, p in supernet.named_parameters()}
    config = random_config(seed, bits=32)
    supernet.activate(config)
    assert {n: p.data_ptr() for n, p in supernet.named_parameters()} == parameters
    layers = supernet.layers()
    for spec in SPACE.layer_specs(config):
        if spec.operator in (Operator.CONV, Operator.DEPTHWISE_CONV):
            conv = layers[spec.site].conv
            assert conv.weight_view().data_ptr() == conv.weight.data_ptr()
        elif spec.operator is Operator.ATTENTION:
            core = layers[spec.site]
            assert core.depthwise_view().data_ptr() == core.weight.data_ptr()
            assert core.position_view().data_ptr() == core.position.data_ptr()


@few
@seeds
def test_float_subnet_equals_the_active_supernet(supernet, digits, seed):
    config = random_config(seed, bits=32)
    images = activated(supernet, config, digits)
    with torch.no_grad():
        expected = supernet(images)
        subnet = supernet.extract(config)
        torch.testing.assert_close(subnet(images), expected, rtol=1e-3, atol=1e-3)


def by_head(spec) -> list[int]:
    """Where a channel of an extracted qkv layer is in the active one: there, heads come first."""
    share, value = spec.out_channels // spec.heads, spec.out_channels // spec.heads - 32
    parts = ((0, 16), (16, 16), (32, value))
    return [
        h * share + i
        for start, n in parts
        for h in range(spec.heads)
        for i in range(start, start + n)
    ]


def check_layers(supernet, subnet, images) -> int:
    """Every layer of the subnet, given what the active layer reads, writes what that writes.

    So no rounding that falls on the other side of a half grows on its way. An integer bias is
    half a step of the accumulator away at most, and the slope of hardswish 1.5.
    """
    seen = {}
    for site, layer in supernet.layers().items():

        def record(x, site=site, compute=layer.compute):
            seen[site] = x, compute(x)
            return seen[site][1]

        layer.compute = record
    try:
        with torch.no_grad():
            supernet(images)
    finally:
        for layer in supernet.layers().values():
            del layer.compute
    order = None
    for spec in subnet.specs:
        if spec.site not in seen:
            continue
        x, expected = seen[spec.site]
        if spec.operator is Operator.ATTENTION:
            x = x[:, order]
        if spec.site.endswith("qkv"):
            order = by_head(spec)
            expected = expected[:, order]
        layer = subnet.get_submodule(spec.site)
        if spec.precision.activation is not None:
            x = layer.quantize(x)
            if spec.precision.weight is None:
                x = layer.dequantize(x)
        found = apply_activation(layer(x), spec.activation)
        allowed = 1e-3 * expected.std() + 1e-3 * expected.abs()
        if getattr(layer, "bias", torch.zeros(())).dtype is torch.int32:
            step = layer.scale.view(-1, *(1,) * (expected.dim() - 2))
            allowed = allowed + 1.5 * 0.5 * step
        assert bool(((found - expected).abs() <= allowed).all()), spec
    return len(seen)


@few
@seeds
def test_layers_of_an_integer_subnet_equal_the_fake_quantised_ones(supernet, digits, seed):
    config = random_config(seed)
    images = activated(supernet, config, digits)
    assert check_layers(supernet, supernet.extract(config), images) >= 20


@few
@seeds
def test_layers_between_layer_norms_are_exported_exactly(normed, digits, seed):
    for bits in (32, None):
        config = random_config(seed, bits, LAYER_NORM)
        images = activated(normed, config, digits)
        subnet = normed.extract(config)
        assert check_layers(normed, subnet, images) >= 20
        if bits == 32:
            with torch.no_grad():
                torch.testing.assert_close(subnet(images), normed(images), rtol=1e-3, atol=1e-3)


def test_with_layer_norm_transformer_blocks_have_no_batch_norm(normed):
    norms = {name for name, m in normed.named_modules() if isinstance(m, ElasticBatchNorm2d)}
    assert norms
    for block in normed.blocks:
        transforms = isinstance(block, ElasticAttention | ElasticMlp)
        own = [m for m in block.modules() if isinstance(m, ElasticBatchNorm2d)]
        assert bool(own) != transforms, block.site
        if transforms:
            biases = [m for m in block.modules() if isinstance(m, ElasticBias)]
            assert len(biases) == (3 if isinstance(block, ElasticAttention) else 2)
            assert isinstance(block.norm, ElasticLayerNorm)


@few
@seeds
def test_a_subnet_with_one_integer_layer_equals_the_fake_quantised_supernet(supernet, digits, seed):
    """A rounding that falls on the other side of a half moves an activation by one of its 255
    steps; with one such layer there are few of them."""
    base = random_config(seed, bits=32)
    names = [n for n in SPACE.names if n.endswith("w_bits")]
    name = names[seed % len(names)]
    config = SPACE.config({**base, name: 8})
    images = activated(supernet, config, digits)
    with torch.no_grad():
        expected, found = supernet(images), supernet.extract(config)(images)
    assert (found - expected).abs().mean() < 0.005 * expected.std()


@few
@seeds
def test_analytic_cost_is_what_the_extracted_module_holds(supernet, seed):
    config = random_config(seed)
    subnet = supernet.extract(config)
    specs = SPACE.layer_specs(config)
    state = subnet.state_dict()
    layout = {n: want for spec in specs for n, want in tensor_layout(spec).items()}
    found = {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()}
    assert found == layout
    assert sum(t.numel() * t.element_size() for t in state.values()) == cost(specs).bytes
    weights = [t for n, t in state.items() if n.endswith((".weight", ".bias"))]
    assert sum(t.numel() for t in weights) == cost(specs).params


@few
@seeds
def test_analytic_macs_are_those_that_torch_counts(supernet, seed):
    config = random_config(seed, bits=32)
    subnet = supernet.extract(config)
    # The fused kernel of CPUs is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        subnet(torch.zeros(1, 1, subnet.resolution, subnet.resolution))
    assert counter.get_total_flops() == 2 * cost(subnet.specs).macs


@few
@seeds
def test_integers_dequantise_to_what_was_trained(supernet, seed):
    """Bit for bit, and the subnet stores these integers: queries, keys and values reordered, all
    of a channel negated where its normalisation is."""
    config = random_config(seed, bits=8)
    subnet = supernet.extract(config)
    layers = supernet.layers()
    for spec in subnet.specs:
        if spec.operator is not Operator.CONV or spec.precision.weight is None:
            continue
        conv = layers[spec.site].conv
        integers = conv.export_int()
        codes, dequantised = integers.codes, integers.dequantize()
        if spec.site.endswith("qkv"):
            by_head = codes.view(spec.heads, -1, *codes.shape[1:])
            value = spec.out_channels // spec.heads - 32
            parts = (by_head[:, :16], by_head[:, 16:32], by_head[:, 32 : 32 + value])
            codes = torch.cat([part.flatten(0, 1) for part in parts])
            whole = dequantised.view(spec.heads, -1, *codes.shape[1:])
            dequantised = whole[:, : 32 + value].flatten(0, 1)
        assert torch.equal(dequantised, conv.active_weight())
        stored, codes = subnet.get_submodule(spec.site).weight.int(), codes.int()
        assert torch.equal(stored.abs(), codes.abs())
        same = (stored * codes >= 0).flatten(1).all(1) | (stored * codes <= 0).flatten(1).all(1)
        assert bool(same.all())


@few
@seeds
def test_every_form_is_exported_exactly(every_form, digits, seed):
    config = random_config(seed, space=FORMS)
    images = activated(every_form, config, digits)
    subnet = every_form.extract(config)
    check_layers(every_form, subnet, images)
    layers = every_form.layers()
    for spec in subnet.specs:
        if spec.operator is Operator.CONV and spec.precision.weight is not None:
            conv = layers[spec.site].conv
            dequantised = conv.export_int().dequantize()
            if spec.site.endswith("qkv"):
                whole = dequantised.view(spec.heads, -1, *dequantised.shape[1:])
                dequantised = whole[:, : spec.out_channels // spec.heads].flatten(0, 1)
            assert torch.equal(dequantised, conv.active_weight())
    size = sum(t.numel() * t.element_size() for t in subnet.state_dict().values())
    assert size == cost(subnet.specs).bytes


def test_torch_export_accepts_a_quantised_subnet(supernet):
    subnet = supernet.extract(random_config(3, bits=8))
    images = torch.rand(1, 1, subnet.resolution, subnet.resolution)
    program = torch.export.export(subnet, (images,))
    torch.testing.assert_close(program.module()(images), subnet(images), rtol=0, atol=0)
    targets = Counter(str(n.target) for n in program.graph.nodes if n.op == "call_function")
    attentions = sum(spec.operator is Operator.ATTENTION for spec in subnet.specs)
    assert targets["aten.scaled_dot_product_attention.default"] == attentions


def test_attention_and_layer_norm_beside_float32_are_refused():
    from dataclasses import replace

    from spaces.quant_scheme import W8A8
    from supernet.extract import Subnet

    specs = LAYER_NORM.layer_specs(LAYER_NORM.min_config())
    for operator in (Operator.ATTENTION, Operator.LAYER_NORM):
        layer = next(spec for spec in specs if spec.operator is operator)
        with pytest.raises(ValueError, match=f"{operator} in w8a8"):
            Subnet([replace(layer, precision=W8A8)])
