"""Subnets with weights of fewer than 8 bits, and weight-only layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spaces import SearchSpace, cost
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import PRECISIONS, precision
from supernet import build_supernet, load_subnet, resize, save_subnet
from supernet.elastic.layer import ElasticLinearLayer
from supernet.elastic.options import LayerOptions
from supernet.extract import WEIGHTS_FILE, Subnet, subnet_from_tensors

WEIGHT_ONLY = [name for name, found in PRECISIONS.items() if found.weight_only]


@pytest.fixture(scope="module")
def space(tiny_space: SearchSpace) -> SearchSpace:
    schemes = ["fp32", *(f"w{bits}a8" for bits in range(2, 9))]
    settings = tiny_space.to_json()["settings"] | {"schemes": schemes}
    return SearchSpace.from_json({**tiny_space.to_json(), "settings": settings, "choices": None})


@pytest.fixture(scope="module")
def supernet(space, digits):
    torch.manual_seed(1)
    supernet = build_supernet(space)
    images = resize(digits.train.images[:64], int(space.max_config()["resolution"]))
    supernet.calibrate([(space.max_config(), images)])
    return supernet


@pytest.mark.parametrize("bits", range(2, 8))
def test_an_extracted_subnet_computes_what_fake_quantisation_trained(
    space, supernet, digits, bits, tmp_path
):
    widths = {n: bits for n in space.names if n.endswith("w_bits")}
    config = space.config({**space.max_config(), **widths, "classifier.w_bits": 32})
    images = resize(digits.selection.images[:32], int(config["resolution"]))
    supernet.eval()
    supernet.activate(config)
    subnet = supernet.extract(config)
    with torch.inference_mode():
        trained, found = supernet(images), subnet(images)
    # A value on the edge between two steps may round either way, and grow on its way.
    close = ((trained - found).abs() <= 1e-4 * trained.abs().max()).float().mean()
    assert close > 0.9

    save_subnet(subnet, tmp_path)
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == cost(subnet.specs).bytes
    loaded = load_subnet(tmp_path)
    assert torch.equal(loaded(images), found)


def test_the_stored_integers_are_those_of_the_quantiser(space, supernet):
    widths = {n: 3 for n in space.names if n.endswith("w_bits")}
    config = space.config({**space.max_config(), **widths})
    subnet = supernet.extract(config)
    head = supernet.layers()["head"]
    codes = subnet.get_submodule("head").codes()
    sign = torch.sign(head.norm.affine()[0]).to(torch.int8)
    assert torch.equal(codes, head.conv.export_int().codes * sign.view(-1, 1, 1, 1))
    assert set(codes.unique().tolist()) <= set(range(-3, 4))


@pytest.mark.parametrize("name", WEIGHT_ONLY)
@pytest.mark.parametrize("inputs", [200, 192])
def test_a_weight_only_layer_is_its_fake_quantised_one_bit_for_bit(name, inputs):
    scheme = precision(name).weight
    assert scheme is not None
    largest = LayerSpec("l", Operator.LINEAR, 256, 24)
    layer = ElasticLinearLayer(LayerOptions(largest, (1,), (scheme,), ()))
    with torch.no_grad():
        layer.linear.bias.normal_()
    layer.calibrate_weights()
    spec = replace(largest, in_channels=inputs, out_channels=10, precision=precision(name))
    layer.activate(spec)
    tensors = {f"l.{role}": tensor for role, tensor in layer.export().items()}
    x = torch.randn(5, inputs, generator=torch.Generator().manual_seed(0))
    subnet = subnet_from_tensors([spec], tensors)
    with torch.inference_mode():
        assert torch.equal(subnet(x), layer(x))
    program = torch.export.export(subnet, (x,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("netcarve.weight_only_linear.default") == 1
    assert targets.count("netcarve.unpack.default") == (scheme.bits < 8)


@pytest.mark.parametrize("name", ["w4a32g64", "w8a32g32"])
def test_only_linear_layers_are_weight_only(name):
    spec = LayerSpec("c", Operator.CONV, 64, 8, precision=precision(name))
    with pytest.raises(ValueError, match=f"c: conv in {name}"):
        Subnet([spec])
