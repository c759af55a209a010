from __future__ import annotations

import pytest
import torch

from supernet.data import Augmentation, DataSplits, ImageSet
from supernet.evaluate import evaluate_module, prepare
from supernet.finetune import FinetuneConfig, finetune

SETTINGS = FinetuneConfig(epochs=2, batch_size=32)
PLAIN = Augmentation(rotation=0, scale=0, shift=0, shear=0)


@pytest.fixture(scope="module")
def few(digits) -> DataSplits:
    part = ImageSet(digits.train.images[:320], digits.train.labels[:320])
    return DataSplits(part, digits.selection, digits.report, digits.classes)


@pytest.fixture(scope="module")
def integer(tiny_space):
    """A subnet of which every layer that can be is in 8 bits."""
    values = {n: 8 for n in tiny_space.names if n.endswith("w_bits")}
    return tiny_space.config({**tiny_space.max_config(), **values, "resolution": 8})


@pytest.fixture(scope="module")
def tuned(calibrated, integer, few):
    before = {name: t.clone() for name, t in calibrated.state_dict().items()}
    subnet = finetune(calibrated, integer, few, SETTINGS, PLAIN)
    return subnet, before


def test_the_integer_subnet_becomes_better(calibrated, integer, few, tuned):
    subnet, _ = tuned
    before = evaluate_module(
        prepare(calibrated, integer, few), few.selection.images, few.selection.labels
    )
    after = evaluate_module(subnet, few.selection.images, few.selection.labels)
    assert subnet.specs == tuple(integer.space.layer_specs(integer))
    assert any(t.dtype is torch.int8 for t in subnet.state_dict().values())
    # The fixture's weights are random.
    assert before.accuracy < 0.3
    assert after.accuracy > before.accuracy + 0.3
    assert after.loss < before.loss


def test_the_supernet_stays_as_it_is(calibrated, tuned):
    _, before = tuned
    running = [n for n in before if "running" in n]
    after = calibrated.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in before if n not in running)


def test_it_is_deterministic_and_decided_by_its_settings(calibrated, integer, few, tuned):
    def tensors(subnet):
        return subnet.state_dict()

    first = tensors(tuned[0])
    torch.manual_seed(99)  # the global generator must not matter
    again = tensors(finetune(calibrated, integer, few, SETTINGS, PLAIN))
    assert all(torch.equal(again[n], first[n]) for n in first)
    changed = SETTINGS.model_copy(update={"epochs": 1, "seed": 1})
    other = tensors(finetune(calibrated, integer, few, changed, Augmentation()))
    assert not all(torch.equal(other[n], first[n]) for n in first)


def test_scales_are_trained_with_their_own_rate(calibrated, integer, few, tuned):
    """A rate of nearly nothing leaves the input's scales where they were."""
    still = SETTINGS.model_copy(update={"epochs": 1, "quantizer_learning_rate": 1e-12})
    subnet = finetune(calibrated, integer, few, still, PLAIN)
    start = prepare(calibrated, integer, few)
    scales = [n for n in subnet.state_dict() if n.endswith("input_scale")]
    assert scales
    for name in scales:
        torch.testing.assert_close(subnet.state_dict()[name], start.state_dict()[name])
    assert any(
        not torch.allclose(tuned[0].state_dict()[n], start.state_dict()[n], rtol=1e-6)
        for n in scales
    )
