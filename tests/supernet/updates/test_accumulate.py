from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from supernet.config import SupernetConfig

SGD = {"name": "accumulate", "optimizer": "sgd"}


def moved(descent, before):
    after = descent.supernet.state_dict()
    return {n: after[n] - t for n, t in before.items() if not n.endswith(("mean", "var"))}


def start(descend):
    return {n: t.clone() for n, t in descend([]).supernet.state_dict().items()}


def test_a_step_adds_the_gradients_of_its_configs(descend, two):
    before = start(descend)
    one, other = (moved(descend([[config]], update=SGD), before) for config in two)
    both = moved(descend([two], update=SGD), before)
    for name, change in both.items():
        torch.testing.assert_close(change, one[name] + other[name], atol=2e-6, rtol=1e-4)


def test_their_mean_is_that_of_each_alone(descend, two):
    """SortedNet: the gradient of a step that draws all members is the mean of the members'."""
    before = start(descend)
    one, other = (moved(descend([[config]], update=SGD), before) for config in two)
    mean = moved(descend([two], update={**SGD, "reduction": "mean"}), before)
    for name, change in mean.items():
        torch.testing.assert_close(change, (one[name] + other[name]) / 2, atol=2e-6, rtol=1e-4)


def test_gradients_are_clipped_before_the_step(descend, two):
    before = start(descend)
    update = {**SGD, "clip": "value", "clip_limit": 1e-3}
    change = moved(descend([two], update=update), before)
    weights = [c for n, c in change.items() if "quantizer" not in n]
    assert max(float(c.abs().max()) for c in weights) == pytest.approx(0.05 * 1e-3, rel=1e-3)


def test_a_limit_belongs_to_a_kind_of_clipping():
    for update in ({"clip": "norm"}, {"clip_limit": 1.0}):
        with pytest.raises(ValidationError, match="clip"):
            SupernetConfig.model_validate({"update": {"name": "accumulate", **update}})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_its_state_goes_on_alike(descend, two, optimizer):
    update = {"name": "accumulate", "optimizer": optimizer}
    whole = descend([two] * 3, update=update)
    first = descend([two] * 2, update=update)
    second = descend([], update=update)
    second.supernet.load_state_dict(first.supernet.state_dict())
    second.update.load_tensors({n: t.clone() for n, t in first.update.tensors().items()})
    state = second.update.tensors()
    assert state.keys() == first.update.tensors().keys()
    assert all(torch.equal(t, first.update.tensors()[n]) for n, t in state.items())
    assert whole.update.tensors().keys() == state.keys()
