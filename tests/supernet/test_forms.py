"""Every form of the elastic quantisation space at every bits, from training to stored integers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import SearchSpace, UnknownNameError
from spaces.cost import cost, tensor_layout
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import LayerPrecision, Symmetry, activation_scheme, weight_scheme
from supernet import build_supernet, load_supernet, resize, save_subnet, save_supernet
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer, ElasticLinearLayer
from supernet.elastic.options import LayerOptions
from supernet.errors import SupernetConfigError
from supernet.extract import load_subnet, subnet_from_tensors
from supernet.quantizers import SharedPow2Quantizer

GRANULARITIES = ("per_tensor", "per_channel", "per_group4", "per_group5")


@st.composite
def precisions(draw: st.DrawFn) -> LayerPrecision:
    bits = st.integers(2, 8)
    weight = weight_scheme(
        draw(bits), draw(st.sampled_from(GRANULARITIES)), draw(st.sampled_from(Symmetry))
    )
    inputs = activation_scheme(draw(bits), draw(st.sampled_from(Symmetry)), draw(st.booleans()))
    return LayerPrecision(weight, inputs)


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    """A layer of a random operator, shape and precision."""
    operator = draw(st.sampled_from([Operator.CONV, Operator.DEPTHWISE_CONV, Operator.LINEAR]))
    inputs, outputs = draw(st.integers(1, 11)), draw(st.integers(1, 7))
    precision = draw(precisions())
    if operator is Operator.LINEAR:
        return LayerSpec("l", operator, inputs, outputs, precision=precision)
    depthwise = operator is Operator.DEPTHWISE_CONV
    kernel, stride = draw(st.sampled_from([1, 3])), draw(st.integers(1, 2))
    return LayerSpec(
        "l", operator, inputs, inputs if depthwise else outputs, 5, (5 - 1) // stride + 1, kernel,
        stride, inputs if depthwise else 1, precision=precision,
    )  # fmt: skip


def trained_layer(spec: LayerSpec, seed: int) -> ElasticLayer:
    """A store with more channels and a second scheme, gammas of both signs, calibrated weights."""
    torch.manual_seed(seed)
    depthwise = spec.operator is Operator.DEPTHWISE_CONV
    inputs = spec.in_channels + 2
    largest = replace(
        spec, in_channels=inputs, out_channels=inputs if depthwise else spec.out_channels + 3,
        groups=inputs if depthwise else 1,
    )  # fmt: skip
    weight, activation = spec.precision.weight, spec.precision.activation
    options = LayerOptions(
        largest, (spec.kernel,), (weight, weight_scheme(7)), (activation, activation_scheme(7))
    )
    layer: ElasticLayer
    if spec.operator is Operator.LINEAR:
        layer = ElasticLinearLayer(options)
        torch.nn.init.normal_(layer.linear.bias)
    else:
        layer = ElasticConvLayer(options)
        norm = layer.norm
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    layer.calibrate_weights()
    layer.activate(spec)
    return layer.eval()


@settings(max_examples=150, deadline=None)
@given(spec=layers(), seed=st.integers(0, 10_000), shift=st.sampled_from([0.0, 1.5]))
def test_stored_integers_compute_what_was_trained(spec, seed, shift):
    layer = trained_layer(spec, seed)
    shape = (3, spec.in_channels)
    x = torch.randn(shape if spec.operator is Operator.LINEAR else (*shape, 5, 5)) + shift
    layer.input_quantizer.calibrate(x, spec.precision.activation)
    operator = layer.linear if isinstance(layer, ElasticLinearLayer) else layer.conv
    with torch.no_grad():
        # The integers of the weight and of the input are the fake-quantised values, bit for bit.
        weight = operator.export_int()
        assert torch.equal(weight.dequantize(), operator.active_weight())
        inputs = layer.input_quantizer.export_int(x, spec.precision.activation)
        trained_input = layer.quantize_input(x)
        assert torch.equal(inputs.dequantize(), trained_input)

        tensors = {f"l.{role}": tensor for role, tensor in layer.export().items()}
        found = {
            n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in tensors.items()
        }
        assert found == tensor_layout(spec)
        assert sum(t.nbytes for t in tensors.values()) == cost([spec]).bytes
        subnet = subnet_from_tensors([spec], tensors)
        stored = subnet.get_submodule("l")
        assert torch.equal(stored.quantize(x), inputs.codes)
        assert torch.equal(stored.dequantize(stored.quantize(x)), trained_input)

        # What the integers mean in float64, where nothing rounds, is what is executed: exact sums,
        # a bias of whole steps, one rounding of the scaled result.
        trained, executed = layer.compute(trained_input), subnet(x)
        largest = float(trained.abs().max())
        step = tensors["l.scale"].abs().amax() / 2 if tensors["l.bias"].dtype == torch.int32 else 0
        assert (executed - trained).abs().max() <= step + 2e-5 * max(largest, 1.0)


@settings(max_examples=60, deadline=None)
@given(spec=layers(), seed=st.integers(0, 10_000))
def test_trained_integers_are_the_stored_ones_but_for_signs(spec, seed):
    layer = trained_layer(spec, seed)
    operator = layer.linear if isinstance(layer, ElasticLinearLayer) else layer.conv
    layer.input_quantizer.calibrate(torch.randn(64), spec.precision.activation)
    trained = operator.export_int()
    centred = trained.codes.int() - trained.zero_point
    subnet = subnet_from_tensors([spec], {f"l.{n}": t for n, t in layer.export().items()})
    stored = subnet.get_submodule("l")
    codes = stored.codes().int()
    if stored.weight_zero_point is not None:
        zeros = stored.weight_zero_point.int()
        if stored.group_size is not None:
            zeros = zeros.repeat_interleave(stored.group_size, 1)[:, : codes.shape[1]]
        codes = codes - zeros.view(*zeros.shape, *(1,) * (codes.dim() - zeros.dim()))
    sign = torch.ones(len(codes), dtype=torch.int32)
    if isinstance(layer, ElasticConvLayer) and stored.group_size is None:
        sign = torch.sign(layer.norm.affine()[0]).int()
    assert torch.equal(codes, centred * sign.view(-1, *(1,) * (codes.dim() - 1)))


def test_every_form_reads_one_weight():
    """All 7 widths, 2 granularities and 2 symmetries are views of one store."""
    forms = [
        weight_scheme(bits, granularity, symmetry)
        for bits in range(2, 9)
        for granularity in ("per_tensor", "per_channel")
        for symmetry in Symmetry
    ]
    inputs = activation_scheme()
    largest = LayerSpec("l", Operator.CONV, 8, 6, 5, 5, 3)
    layer = ElasticConvLayer(LayerOptions(largest, (3,), tuple(forms), (inputs,)))
    layer.calibrate_weights()
    pointers, results = set(), []
    for form in forms:
        layer.activate(replace(largest, in_channels=4, precision=LayerPrecision(form, inputs)))
        assert (
            layer.conv.float_weight().untyped_storage().data_ptr() == layer.conv.weight.data_ptr()
        )
        pointers.add(layer.conv.weight_view().data_ptr())
        results.append(layer.conv.active_weight().detach())
    assert pointers == {layer.conv.weight.data_ptr()}
    assert len({tuple(r.flatten().tolist()) for r in results}) == len(forms) == 28


@pytest.fixture(scope="module")
def space(tiny_space: SearchSpace) -> SearchSpace:
    data = tiny_space.to_json()
    settings = {k: v for k, v in data["settings"].items() if k != "schemes"} | {
        "w_bits": [3, 8],
        "a_bits": [4, 8],
        "granularity": ["per_tensor", "per_channel", "per_group8"],
        "weight_symmetry": ["symmetric", "asymmetric"],
        "activation_symmetry": ["symmetric", "asymmetric"],
    }
    stages = [{**stage, "kernel": [3, 5]} for stage in data["settings"]["stages"]]
    settings |= {"stages": stages, "resolution": [8]}
    return SearchSpace.from_json({**data, "settings": settings, "choices": None})


@pytest.fixture(scope="module")
def supernet(space, digits):
    torch.manual_seed(3)
    supernet = build_supernet(space)
    with torch.no_grad():
        for norm in supernet.norms():
            norm.weight.mul_(torch.randn_like(norm.weight).sign())
    images = resize(digits.train.images[:48], 8)
    supernet.calibrate([(space.max_config(), images)])
    return supernet


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("form", [
    ("per_tensor", "symmetric", "symmetric"),
    ("per_tensor", "asymmetric", "asymmetric"),
    ("per_channel", "asymmetric", "symmetric"),
    ("per_group8", "symmetric", "asymmetric"),
    ("per_group8", "asymmetric", "symmetric"),
])  # fmt: skip
def test_an_extracted_subnet_of_any_form_computes_what_was_trained(
    space, supernet, digits, form, bits, tmp_path
):
    names = ("weight.granularity", "weight.symmetry", "activation.symmetry")
    widths = {n: bits for n in space.names if n.endswith(".w_bits")}
    config = space.config({**space.max_config(), **widths, **dict(zip(names, form, strict=True))})
    images = resize(digits.selection.images[:32], 8)
    supernet.eval()
    supernet.activate(config)
    subnet = supernet.extract(config)
    with torch.inference_mode():
        trained, found = supernet(images), subnet(images)
    # A value on the edge between two steps may round either way, and grow on its way.
    close = ((trained - found).abs() <= 1e-3 * trained.abs().max()).float().mean()
    assert close > 0.9
    assert trained.std() > 0
    save_subnet(subnet, tmp_path)
    assert torch.equal(load_subnet(tmp_path)(images), found)
    assert sum(t.nbytes for t in subnet.state_dict().values()) == cost(subnet.specs).bytes
    program = torch.export.export(subnet, (images[:1],))
    assert torch.equal(program.module()(images[:1]), subnet(images[:1]))
    targets = {str(node.target) for node in program.graph.nodes}
    grouped = form[0] == "per_group8"
    assert ("netcarve.qconv2d_grouped.default" in targets) == grouped
    assert ("netcarve.qconv2d.default" in targets) != grouped


def test_the_kind_of_quantiser_is_a_choice_that_is_stored(tiny_space, digits, tmp_path):
    settings = tiny_space.to_json()["settings"] | {"schemes": ["w4a8", "w8a8"]}
    space = SearchSpace.from_json({**tiny_space.to_json(), "settings": settings, "choices": None})
    supernet = build_supernet(space, quantizer="shared_pow2")
    head = supernet.layers()["head"]
    assert isinstance(head.input_quantizer, SharedPow2Quantizer)
    assert list(head.conv.weight_quantizers["k1"].log_scale) == ["s8_per_channel_symmetric"]
    config = space.min_config()
    images = resize(digits.train.images[:32], supernet.resolution)
    supernet.calibrate([(space.max_config(), images)])
    save_supernet(supernet, tmp_path)
    loaded = load_supernet(tmp_path)
    assert loaded.quantizer == "shared_pow2"
    images = resize(images, int(config["resolution"]))
    assert torch.equal(loaded.extract(config)(images), supernet.extract(config)(images))
    assert build_supernet(space).quantizer == "per_form"


def test_a_quantiser_that_a_space_cannot_have_is_refused(space, tiny_space):
    with pytest.raises(SupernetConfigError, match=r"shared_pow2.*zero point"):
        build_supernet(space, "shared_pow2")
    with pytest.raises(SupernetConfigError, match=r"shared_8bit.*8 bits"):
        build_supernet(space, "shared_8bit")
    with pytest.raises(UnknownNameError, match="per_form, shared_8bit, shared_pow2"):
        build_supernet(tiny_space, "per_farm")
