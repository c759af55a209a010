from __future__ import annotations

import pytest
import torch

from supernet.samplers import Draw, Role
from supernet.schedule import Rates
from supernet.updates.per_precision import bits_factor, mean_scale_gradient, mean_weight_bits

SGD = {"optimizer": "sgd"}


def test_the_factor_of_each_precision():
    factors = [bits_factor(8, bits) for bits in (8, 7, 6, 5, 4, 3, 2)]
    assert factors == pytest.approx([1, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001])


def test_the_mean_gradient_takes_the_largest_of_each_tensor_clipped():
    scales = [torch.zeros(3) for _ in range(4)]
    scales[0].grad = torch.tensor([0.1, -0.4, 0.2])
    scales[1].grad = torch.tensor([50.0, 0.0, 0.0])
    scales[2].grad = torch.zeros(3)
    assert mean_scale_gradient(scales) == pytest.approx((0.4 + 1 + 0) / 3)
    assert mean_scale_gradient(scales[3:]) == 0.0


def test_weights_step_after_each_config(descend, two):
    """One step with two configs is two steps with one each, but for the learning rates."""
    update = {"name": "per_precision", "scale_rates": "scheduled", **SGD}
    together = descend([two], update=update).supernet.state_dict()
    apart = descend([[config] for config in two], update=update).supernet.state_dict()
    once = descend([two], update={"name": "accumulate", **SGD}).supernet.state_dict()
    assert all(torch.equal(together[n], apart[n]) for n in together)
    assert not all(torch.equal(together[n], once[n]) for n in together)


def test_scales_of_few_bits_move_slowly_and_never_backwards(descend, two, small_space):
    descent = descend([], update={"name": "per_precision", **SGD})
    rule = descent.update
    rule.begin(Rates(0.05, 0.01))
    scales = [p for n, p in descent.supernet.named_parameters() if ".log_scale." in n]
    for scale in scales:
        scale.grad = torch.full_like(scale, 0.25)
    assert rule.scale_rate(two[1]) == pytest.approx(0.01 * 0.75)
    assert rule.scale_rate(two[0]) == pytest.approx(0.001 * 0.01 * 0.75)
    # Literally, the paper's rate would be 0.01 - 1 here.
    for scale in scales:
        scale.grad = torch.full_like(scale, -40.0)
    assert rule.scale_rate(two[1]) == 0.0
    assert rule.scale_rate(small_space.max_config()) == 0.0


def test_mixed_bits_count_as_their_mean(small_space, two):
    values = dict(two[1])
    names = [name for name in values if name.endswith("w_bits")]
    half = dict.fromkeys(names[::2], 2)
    mixed = small_space.config({**values, **half})
    assert mean_weight_bits(mixed) == round(8 - 6 * len(half) / len(names))
    assert mean_weight_bits(small_space.max_config()) is None


def test_scales_have_an_optimiser_without_decay(descend):
    rule = descend([], update="per_precision", weight_decay=0.1).update
    assert [group["weight_decay"] for group in rule.weights.param_groups] == [0.1, 0.0]
    assert [group["weight_decay"] for group in rule.scales.param_groups] == [0.0]
    scales = {id(p) for group in rule.scales.param_groups for p in group["params"]}
    weights = {id(p) for group in rule.weights.param_groups for p in group["params"]}
    assert not scales & weights


def test_its_state_goes_on_alike(descend, two):
    rule = descend([two] * 2, update="per_precision").update
    again = descend([], update="per_precision").update
    again.load_tensors({n: t.clone() for n, t in rule.tensors().items()})
    assert rule.tensors().keys() == again.tensors().keys()
    assert all(torch.equal(t, again.tensors()[n]) for n, t in rule.tensors().items())
    assert {name.partition(".")[0] for name in rule.tensors()} == {"weights", "scales"}
    with pytest.raises(KeyError):
        again.load_tensors({"other.0.exp_avg": torch.zeros(1)})


def test_a_float_config_moves_weights_but_no_scales(descend, small_space):
    descent = descend([], update="per_precision")
    before = {n: t.clone() for n, t in descent.supernet.state_dict().items()}
    descent.update.begin(Rates(0.05, 0.01))
    descent.supernet.activate(small_space.max_config())
    torch.autograd.backward(descent.supernet(torch.randn(4, 1, 8, 8)).square().mean())
    descent.update.after_backward(Draw(small_space.max_config(), Role.MAX))
    after = descent.supernet.state_dict()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert any(n.endswith("conv.weight") for n in moved)
    assert not any("log_scale" in n or "zero_point" in n for n in moved)
