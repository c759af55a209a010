from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces.cost import cost, tensor_layout
from spaces.layer_spec import Operator
from spaces.population import sample
from supernet.data import resize
from supernet.recalibration import recalibrate
from supernet.supernet import layer_options

FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def random_config(space, seed, **values):
    row = sample(space, 1, np.random.default_rng(seed))[0]
    config = space.from_indices(row)
    return space.config({**config, **values}) if values else config


def bits(space, value):
    return {name: value for name in space.names if name.endswith("w_bits")}


def activated(supernet, config, digits, count=64):
    supernet.activate(config)
    recalibrate(supernet, digits.train.images[:128])
    return resize(digits.selection.images[:count], supernet.resolution)


def test_the_store_is_read_off_the_spaces_layers(tiny_space):
    options = layer_options(tiny_space)
    assert options["stage1.block0.depthwise"].kernels == (3, 5, 7)
    assert options["stage2.block0.depthwise"].kernels == (3, 5)
    assert [s.key for s in options["head"].weight_schemes] == ["s8.per_channel.symmetric"]
    assert options["stem"].weight_schemes == ()
    assert options["stage1.block1.se"].weight_schemes == ()
    assert [s.key for s in options["stage1.block1.se"].activation_schemes] == [
        "u8.per_tensor.asymmetric"
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(seed=st.integers(0, 10**6))
def test_activation_copies_no_weight(calibrated, tiny_space, seed):
    parameters = {n: p.data_ptr() for n, p in calibrated.named_parameters()}
    config = random_config(tiny_space, seed, **bits(tiny_space, 32))
    calibrated.activate(config)
    assert {n: p.data_ptr() for n, p in calibrated.named_parameters()} == parameters
    layers = calibrated.layers()
    for spec in tiny_space.layer_specs(config):
        if spec.operator in (Operator.CONV, Operator.DEPTHWISE_CONV):
            conv = layers[spec.site].conv
            assert conv.weight_view().data_ptr() == conv.weight.data_ptr()
            if spec.kernel == conv.weight.shape[-1]:
                assert conv.active_weight().data_ptr() == conv.weight.data_ptr()


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(seed=st.integers(0, 10**6))
def test_float_subnet_equals_the_active_supernet(calibrated, tiny_space, digits, seed):
    config = random_config(tiny_space, seed, **bits(tiny_space, 32))
    images = activated(calibrated, config, digits)
    with torch.no_grad():
        expected = calibrated(images)
        subnet = calibrated.extract(config)
        torch.testing.assert_close(subnet(images), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(seed=st.integers(0, 10**6))
def test_integer_subnet_equals_the_fake_quantised_supernet(calibrated, tiny_space, digits, seed):
    """A rounding that falls on the other side of a half moves an activation by one of its 255
    steps; the mean logit moves by less than 4 % of the logits' spread."""
    config = random_config(tiny_space, seed)
    images = activated(calibrated, config, digits)
    with torch.no_grad():
        expected = calibrated(images)
        got = calibrated.extract(config)(images)
    spread = expected.std()
    assert (got - expected).abs().mean() < 0.04 * spread
    assert (got - expected).abs().max() < 0.3 * spread


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(seed=st.integers(0, 10**6))
def test_analytic_cost_is_what_the_extracted_module_holds(calibrated, tiny_space, seed):
    config = random_config(tiny_space, seed)
    subnet = calibrated.extract(config)
    specs = tiny_space.layer_specs(config)
    analytic = cost(specs)
    state = subnet.state_dict()
    layout = {n: want for spec in specs for n, want in tensor_layout(spec).items()}
    found = {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()}
    assert found == layout
    assert sum(t.numel() * t.element_size() for t in state.values()) == analytic.bytes
    weights = {n: t for n, t in state.items() if n.endswith((".weight", ".bias"))}
    assert sum(t.numel() for t in weights.values()) == analytic.params
    assert counted_macs(subnet) == analytic.macs


def counted_macs(subnet):
    """Multiply-accumulates seen by hooks on a real forward pass."""
    total = 0

    def count(module, _inputs, output):
        nonlocal total
        weight = getattr(module, "weight", None)
        if weight is None:
            return
        if weight.dim() == 4:
            total += weight[0].numel() * output[0].numel()
        elif weight.dim() == 2:
            total += weight.numel()

    hooks = [module.register_forward_hook(count) for module in subnet.modules()]
    subnet(torch.zeros(1, 1, subnet.resolution, subnet.resolution))
    for hook in hooks:
        hook.remove()
    return total


def test_bits_of_one_layer_change_its_numbers_only_through_quantisation(
    calibrated, tiny_space, digits
):
    base = tiny_space.max_config()
    images = activated(calibrated, base, digits)
    with torch.no_grad():
        reference = calibrated(images)
        for name in bits(tiny_space, 8):
            calibrated.activate(tiny_space.config({**base, name: 8}))
            changed = calibrated(images)
            assert not torch.equal(changed, reference), name
            assert (changed - reference).abs().mean() < 0.1 * reference.std(), name


def test_a_restricted_space_runs_on_the_full_store(calibrated, tiny_space, digits):
    small = tiny_space.restrict(choices={"stage*.width": [16], "*.w_bits": [8]})
    config = small.max_config()
    subnet = calibrated.extract(config)
    assert all(
        s.precision.weight is not None
        for s in subnet.specs
        if s.operator in (Operator.CONV, Operator.LINEAR) and s.site != "stem"
    )
    images = resize(digits.selection.images[:4], subnet.resolution)
    assert torch.isfinite(subnet(images)).all()


def test_calibration_needs_no_gradient_and_restores_the_mode(calibrated, tiny_space, digits):
    calibrated.eval()
    config = tiny_space.min_config()
    images = resize(digits.train.images[:32], int(config["resolution"]))
    state = {n: t.clone() for n, t in calibrated.state_dict().items()}
    calibrated.calibrate([(config, images)])
    assert not calibrated.training
    assert all(p.grad is None for p in calibrated.quantizer_parameters())
    changed = {n for n, t in calibrated.state_dict().items() if not torch.equal(t, state[n])}
    assert changed
    assert all(".log_scale." in n or ".zero_point." in n for n in changed)
    # An input that this batch never reached keeps its scale.
    absent = "blocks.1.expand.input_quantizer.log_scale.u8_per_tensor_asymmetric"
    assert absent not in changed
    calibrated.load_state_dict(state)
