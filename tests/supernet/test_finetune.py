from __future__ import annotations

import copy
import shutil
import sys

import pytest
import torch

from supernet.batches import Batches
from supernet.checkpoint import save_checkpoint
from supernet.data import Augmentation, DataSplits, ImageSet
from supernet.evaluate import evaluate_module, prepare
from supernet.finetune import FinetuneConfig, finetune

# The package gives its function the same name.
module = sys.modules[finetune.__module__]
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


class Killed(BaseException):
    pass


@pytest.fixture
def interrupted(calibrated, integer, few, tmp_path, monkeypatch):
    """The folder of a fine-tuning that was killed in its second epoch."""
    steps = []
    batch = Batches.batch

    def counted(self, step):
        if step == 13:
            raise Killed
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "batch", counted)
        with pytest.raises(Killed):
            finetune(calibrated, integer, few, SETTINGS, PLAIN, tmp_path / "own")

    def noted(self, step):
        steps.append(step)
        return batch(self, step)

    monkeypatch.setattr(Batches, "batch", noted)
    return tmp_path / "own", steps


def equal(subnet, other) -> bool:
    tensors, others = subnet.state_dict(), other.state_dict()
    return all(torch.equal(tensors[name], others[name]) for name in others)


def test_a_killed_one_goes_on_after_its_last_epoch_to_the_same_weights(
    calibrated, integer, few, tuned, interrupted
):
    folder, steps = interrupted
    assert [path.name for path in folder.iterdir()] == ["step-00000010"]
    again = finetune(calibrated, integer, few, SETTINGS, PLAIN, folder)
    assert steps == list(range(10, 20))
    assert equal(again, tuned[0])
    # One that died after its last step, before anybody had its subnet, trains no more.
    assert equal(finetune(calibrated, integer, few, SETTINGS, PLAIN, folder), tuned[0])
    assert len(steps) == 10


def test_within_a_long_epoch_there_are_checkpoints_too(
    calibrated, integer, few, tuned, tmp_path, monkeypatch
):
    saved = []

    def save(folder, checkpoint):
        saved.append(checkpoint.step)
        return save_checkpoint(folder, checkpoint)

    monkeypatch.setattr(module, "_CHECKPOINT_STEPS", 4)
    monkeypatch.setattr(module, "save_checkpoint", save)
    assert equal(finetune(calibrated, integer, few, SETTINGS, PLAIN, tmp_path), tuned[0])
    assert saved == [4, 8, 10, 14, 18, 20]


@pytest.mark.parametrize("wrong", ["damaged", "weights", "settings", "config", "images"])
def test_a_checkpoint_of_no_use_is_removed_and_nothing_of_it_enters(
    calibrated, integer, few, interrupted, tiny_space, caplog, wrong
):
    folder, steps = interrupted
    start, config, data, settings = calibrated, integer, few, SETTINGS
    if wrong == "damaged":
        (folder / "step-00000010" / "tensors.safetensors").write_bytes(b"")
    elif wrong == "weights":
        start = copy.deepcopy(calibrated)
        with torch.no_grad():
            next(start.parameters()).mul_(2)
    elif wrong == "settings":
        settings = SETTINGS.model_copy(update={"learning_rate": 2e-3})
    elif wrong == "config":
        config = tiny_space.min_config()
    else:
        labels = few.train.labels.roll(1)
        data = DataSplits(
            ImageSet(few.train.images, labels), few.selection, few.report, few.classes
        )
    found = finetune(start, config, data, settings, PLAIN, folder)
    assert steps == list(range(20))
    assert "from the beginning" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000010", "step-00000020"]
    shutil.rmtree(folder)
    assert equal(found, finetune(start, config, data, settings, PLAIN))
