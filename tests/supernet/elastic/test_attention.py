from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from spaces.families.transformer import attention_layers
from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION, W8A8
from supernet.attention import attend, position_bias
from supernet.distributed import SingleWorld
from supernet.elastic import (
    ElasticAttention,
    ElasticBatchNorm2d,
    ElasticHeadNorm,
    ElasticProjectionConv2d,
    ElasticQkvConv2d,
    ElasticQkvLayer,
    LayerOptions,
)
from supernet.errors import SupernetConfigError
from supernet.extract import Subnet

SITE = "a"
HEADS, SCALE, SIZE = 3, 4, 5
HEAD = 16 + 16 + 64
"""Rows of a head in the store: query, key, widest value."""


def specs(heads: int, scale: int, size: int = SIZE, bits: int = 32) -> dict[str, LayerSpec]:
    values = {f"{SITE}.{name}.w_bits": bits for name in ("qkv", "project")}
    layers = attention_layers(SITE, 16 * heads, heads, scale, size, values)
    return {layer.site.rpartition(".")[2]: layer for layer in layers}


def options(name: str) -> LayerOptions:
    largest = specs(HEADS, SCALE)[name]
    schemes = () if name == "core" else (S8_WEIGHT,)
    inputs = () if name == "core" else (U8_ACTIVATION,)
    return LayerOptions(largest, (largest.kernel,), schemes, inputs)


def block() -> ElasticAttention:
    torch.manual_seed(0)
    found = ElasticAttention(SITE, {f"{SITE}.{n}": options(n) for n in ("qkv", "core", "project")})
    with torch.no_grad():
        for norm in (m for m in found.modules() if isinstance(m, ElasticBatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.2)
            norm.running_mean.normal_(std=0.2)
            norm.running_var.uniform_(0.5, 2)
        found.core.position.normal_()
    return found


def activated(heads: int, scale: int, size: int = SIZE, bits: int = 32) -> ElasticAttention:
    found = block()
    layers = specs(heads, scale, size, bits)
    found.activate({layer.site: layer for layer in layers.values()})
    return found


def rows(heads: int, scale: int) -> list[int]:
    """Rows of the qkv store that a subnet uses, in the order of the active layer."""
    return [head * HEAD + row for head in range(heads) for row in range(32 + 16 * scale)]


def test_slices_are_strided_views_of_the_store():
    found = activated(2, 3, size=4)
    store, view = found.core.position, found.core.position_view()
    assert torch.equal(view, store[:2, :4, :4])
    assert view.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()
    store, view = found.core.weight, found.core.depthwise_view()
    assert torch.equal(view, store.view(3, 64, 1, 3, 3)[:2, :48])
    assert view.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()
    store, view = found.project.conv.weight, found.project.conv.weight_view()
    assert torch.equal(view, store.view(48, 3, 64, 1, 1)[:32, :2, :48])
    assert view.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()
    store, view = found.qkv.conv.weight, found.qkv.conv.weight_view()
    assert view.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()
    assert torch.equal(found.qkv.conv.active_weight(), store[rows(2, 3), :32])


def test_nothing_is_copied_for_whole_heads():
    found = activated(2, SCALE)
    for weight, store in (
        (found.qkv.conv.active_weight(), found.qkv.conv.weight),
        (found.core.depthwise_view().flatten(0, 1), found.core.weight),
    ):
        assert weight.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()


@pytest.mark.parametrize(("heads", "scale", "size"), [(3, 4, 5), (2, 3, 4), (1, 2, 5), (3, 1, 1)])
def test_the_block_is_attention_of_its_slices(heads, scale, size):
    """Written out with the slices of the stores taken by hand."""
    found = activated(heads, scale, size).eval()
    x = torch.randn(2, 16 * heads, size, size)
    value = 16 * scale

    def normalised(norm: ElasticBatchNorm2d, y: torch.Tensor, chosen: list[int]) -> torch.Tensor:
        mean, var = norm.running_mean[chosen], norm.running_var[chosen]
        return F.batch_norm(y, mean, var, norm.weight[chosen], norm.bias[chosen])

    kept = rows(heads, scale)
    y = F.conv2d(x, found.qkv.conv.weight[kept, : 16 * heads])
    y = normalised(found.qkv.norm, y, kept).view(2, heads, 32 + value, size * size)
    q, k = y[:, :, :16].transpose(2, 3), y[:, :, 16:32].transpose(2, 3)
    kept = [64 * head + row for head in range(heads) for row in range(value)]
    v = y[:, :, 32:].reshape(2, heads * value, size, size)
    v = F.conv2d(v, found.core.weight[kept], padding=1, groups=heads * value)
    v = normalised(found.core.norm, v, kept).view(2, heads, value, size * size).transpose(2, 3)
    out = attend(q, k, v, position_bias(found.core.position[:heads, :size, :size]))
    out = F.hardswish(out.transpose(2, 3).reshape(2, heads * value, size, size))
    out = F.conv2d(out, found.project.conv.weight[: 16 * heads][:, kept])
    out = normalised(found.project.norm, out, list(range(16 * heads)))
    torch.testing.assert_close(found(x), x + out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [32, 8])
def test_the_extracted_block_computes_the_same(bits):
    found = activated(2, 3, 4, bits).eval()
    x = torch.randn(2, 32, 4, 4)
    for layer in found.layers().values():
        layer.calibrate_weights()
        layer.observed = []
    found(x)
    for layer in found.layers().values():
        layer.calibrate_input()
    subnet = Subnet([layer.spec for layer in found.layers().values()])
    tensors = {
        f"{site}.{name}": tensor
        for site, layer in found.layers().items()
        for name, tensor in layer.export().items()
    }
    subnet.load_state_dict(tensors)
    expected, got = found(x), subnet(x)
    if bits == 32:
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    else:
        assert (got - expected).abs().mean() < 0.01 * expected.std()
        assert tensors["a.qkv.weight"].dtype is torch.int8


def test_export_puts_queries_keys_and_values_one_after_the_other():
    found = activated(2, 3)
    weight = found.qkv.export()["weight"]
    multiplier, _ = found.qkv.norm.affine()
    folded = found.qkv.conv.weight[: 2 * HEAD, :32] * multiplier.view(-1, 1, 1, 1)
    # Of head 1: its first key, its last value.
    torch.testing.assert_close(weight[2 * 16 + 16], folded[HEAD + 16])
    torch.testing.assert_close(weight[-1], folded[HEAD + 32 + 48 - 1])
    assert weight.shape == (2 * (16 + 16 + 48), 32, 1, 1)


def test_rows_keep_their_scales_whatever_the_width():
    found = block().qkv
    found.calibrate_weights()
    full, narrow = specs(HEADS, SCALE, bits=8)["qkv"], specs(2, 1, bits=8)["qkv"]
    found.activate(replace(full, precision=W8A8))
    whole = found.conv.active_weight()
    found.activate(replace(narrow, precision=W8A8))
    assert torch.equal(found.conv.active_weight(), whole[rows(2, 1), :32])
    integers = found.conv.export_int()
    assert torch.equal(integers.dequantize()[rows(2, 1)], found.conv.active_weight())


def test_the_norm_estimates_statistics_of_the_active_channels_alone():
    norm = ElasticHeadNorm(3 * 6, 3)
    norm.activate_heads(2, 4)
    norm.running_mean.fill_(99)
    batches = [torch.randn(16, 8, 3, 3) * (i + 1) + i for i in range(3)]
    norm.train()
    norm.start_recalibration()
    for batch in batches:
        norm(batch)
    norm.stop_recalibration()
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    var = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean.view(3, 6)[:2, :4].flatten(), mean)
    torch.testing.assert_close(norm.running_var.view(3, 6)[:2, :4].flatten(), var)
    assert (norm.running_mean.view(3, 6)[:2, 4:] == 99).all()
    assert (norm.running_mean.view(3, 6)[2] == 99).all()


class Twins(SingleWorld):
    """One of two workers that hold the same rows."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


def test_workers_share_the_statistics_of_the_active_channels():
    norm = ElasticHeadNorm(3 * 6, 3)
    norm.activate_heads(2, 4)
    norm.running_mean.fill_(99)
    norm.train()
    x = torch.randn(16, 8, 3, 3) + 2
    expected = norm(x)
    norm.world = Twins()
    norm.start_recalibration()
    torch.testing.assert_close(norm(x), expected)
    both = torch.cat([x, x])
    found = norm.running_mean.view(3, 6)
    torch.testing.assert_close(found[:2, :4].flatten(), both.mean((0, 2, 3)))
    var = norm.running_var.view(3, 6)[:2, :4].flatten()
    torch.testing.assert_close(var, both.transpose(0, 1).flatten(1).var(1))
    assert (found[:2, 4:] == 99).all()


def test_gradients_reach_the_active_parts_of_the_stores_only():
    found = activated(2, 2, 3).train()
    found(torch.randn(4, 32, 3, 3)).square().sum().backward()
    grads = {name: p.grad for name, p in found.named_parameters() if p.grad is not None}
    by_head = grads["qkv.conv.weight"].view(HEADS, HEAD, 48)
    assert by_head[:2, : 32 + 32, :32].abs().amax(2).min() > 0
    assert not by_head[2:].any()
    assert not by_head[:, 32 + 32 :].any()
    table = grads["core.position"]
    assert table[:2, :3, :3].abs().min() > 0
    assert not table[2:].any()
    assert not table[:, 3:].any()
    assert not table[:, :, 3:].any()
    inputs = grads["project.conv.weight"].view(48, HEADS, 64)
    assert inputs[:32, :2, :32].abs().amax(0).min() > 0
    assert not inputs[:, :, 32:].any()


def test_an_absent_block_is_the_identity():
    found = block()
    found.activate({})
    x = torch.randn(1, 48, 3, 3)
    assert found(x) is x


def test_a_fresh_block_is_its_shortcut():
    torch.manual_seed(0)
    found = ElasticAttention(SITE, {f"{SITE}.{n}": options(n) for n in ("qkv", "core", "project")})
    x = torch.randn(4, 48, 5, 5)
    assert torch.equal(found.train()(x), x)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("core", specs(2, 2, SIZE + 1)["core"]),
        ("core", specs(HEADS + 1, 1)["core"]),
        ("core", replace(specs(2, 2)["core"], in_channels=2 * (8 + 8 + 32))),
        ("qkv", specs(1, SCALE + 1)["qkv"]),
        ("project", specs(1, SCALE + 1)["project"]),
    ],
)
def test_what_the_store_does_not_hold_is_a_typed_error(name, spec):
    with pytest.raises(SupernetConfigError, match="does not fit"):
        getattr(block(), name).activate(spec)


def test_layers_use_the_convolutions_of_their_heads():
    found = block()
    assert isinstance(found.qkv, ElasticQkvLayer)
    assert isinstance(found.qkv.conv, ElasticQkvConv2d)
    assert isinstance(found.project.conv, ElasticProjectionConv2d)
