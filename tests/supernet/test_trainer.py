from __future__ import annotations

import pytest
import torch

from supernet.checkpoint import read_checkpoint, save_checkpoint
from supernet.config import SupernetConfig
from supernet.data import DataSplits, ImageSet
from supernet.errors import CheckpointError, SupernetConfigError
from supernet.trainer import Trainer
from tests.supernet.short_run import SHORT


def equal(a, b):
    left, right = a.supernet.state_dict(), b.supernet.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_resumed_run_equals_the_uninterrupted_one(tiny_space, few, uninterrupted, stop):
    """Stopped in the warm-up, exactly between the phases, and in the sandwich."""
    whole, losses = uninterrupted
    assert whole.warmup_steps == 5
    first = Trainer(tiny_space, SHORT, few)
    for _ in range(stop):
        first.train_step()
    torch.manual_seed(123)  # the global generator must not matter
    second = Trainer(tiny_space, SHORT, few)
    second.restore(first.checkpoint())
    rest = [second.train_step() for _ in range(second.total_steps - stop)]
    assert rest == losses[stop:]
    assert equal(second, whole)


def test_the_sandwich_trains_every_part_of_the_store(uninterrupted, tiny_space, few):
    whole, _ = uninterrupted
    before = Trainer(tiny_space, SHORT, few).supernet.state_dict()
    after = whole.supernet.state_dict()
    unmoved = [n for n, t in after.items() if torch.equal(t, before[n]) and "running" not in n]
    # Quantisers of forms that the few draws of this short run never chose may stand still.
    assert [n for n in unmoved if "quantizer" not in n and "kernel_transforms" not in n] == []


def test_options_that_do_not_fit_the_data_are_typed_errors(tiny_space, few, digits):
    with pytest.raises(SupernetConfigError, match="batch_size 512 exceeds the 160"):
        Trainer(tiny_space, SHORT.model_copy(update={"batch_size": 512}), few)
    coloured = ImageSet(few.train.images.repeat(1, 3, 1, 1), few.train.labels)
    with pytest.raises(SupernetConfigError, match=r"\(3, 10\)"):
        Trainer(tiny_space, SHORT, DataSplits(coloured, few.selection, few.report, 10))


def test_the_seed_decides_everything(tiny_space, few):
    losses = {}
    for seed in (0, 1):
        trainer = Trainer(tiny_space, SHORT.model_copy(update={"seed": seed}), few)
        losses[seed] = [trainer.train_step() for _ in range(2)]
    assert losses[0] != losses[1]


def test_bfloat16_trains_the_same_up_to_its_rounding(tiny_space, few, uninterrupted):
    """With quantisers, whose codes bfloat16 could not hold."""
    config = SupernetConfig.model_validate(SHORT.model_dump() | {"precision": "bf16"})
    trainer = Trainer(tiny_space, config, few)
    losses = [trainer.train_step() for _ in range(trainer.total_steps)]
    assert losses == pytest.approx(uninterrupted[1], rel=0.05)
    assert losses != uninterrupted[1], "it does compute otherwise"
    assert {p.dtype for p in trainer.supernet.parameters()} == {torch.float32}


SEAMS = {
    "banks and chain": {
        "sampler": {
            "name": "performance",
            "levels": 3,
            "candidates": 512,
            "capacity": 2,
            "exploit_from": 1.0,
            "exploit_to": 1.0,
        },
        "objective": "chain",
    },
    "levels, wave, alpha, clipping": {
        "sampler": {"name": "complexity", "levels": 3, "candidates": 512, "bits": "triangle"},
        "objective": {"name": "distillation", "teacher": "random_mean", "divergence": "alpha"},
        "update": {
            "name": "accumulate",
            "optimizer": "sgd",
            "clip": "adaptive",
            "clip_limit": 0.1,
        },
        "regularizer": "kurtosis_skew",
        "learning_rate": 0.05,
    },
    "Hessian, steps per precision": {
        "sampler": {"name": "sandwich", "bits": {"name": "hessian", "probes": 2}},
        "objective": "instatune",
        "update": "per_precision",
    },
    "nested": {"sampler": {"name": "nested", "all_in_step": True}, "objective": "task"},
}


@pytest.mark.parametrize("options", SEAMS.values(), ids=list(SEAMS))
def test_plug_ins_train_and_resume_bitwise(small_space, few, tmp_path, options):
    """Through a checkpoint on disk, so that all their state is JSON and tensors."""
    config = SupernetConfig.model_validate({**SHORT.model_dump(), **options})
    whole = Trainer(small_space, config, few)
    losses = [whole.train_step() for _ in range(whole.total_steps)]
    first = Trainer(small_space, config, few)
    for _ in range(7):
        first.train_step()
    path = save_checkpoint(tmp_path, first.checkpoint())
    second = Trainer(small_space, config, few)
    second.restore(read_checkpoint(path))
    assert [second.train_step() for _ in range(second.total_steps - 7)] == losses[7:]
    assert equal(second, whole)
    assert second.checkpoint().state == whole.checkpoint().state


def test_options_that_contradict_one_another_are_refused_before_training(tiny_space, few):
    options = {**SHORT.model_dump(), "sampler": "complexity"}
    with pytest.raises(SupernetConfigError, match=r"objective distillation .* sampler complexity"):
        Trainer(tiny_space, SupernetConfig.model_validate(options), few)


def test_the_external_teacher_is_read_from_its_folder(tiny_space, small_space, few, finished):
    options = {**SHORT.model_dump(), "objective": "external_teacher", "teacher": finished}
    trainer = Trainer(small_space, SupernetConfig.model_validate(options), few)
    assert [trainer.train_step() for _ in range(7)][-1] > 0
    with pytest.raises(CheckpointError, match="none"):
        Trainer(small_space, SupernetConfig.model_validate({**options, "teacher": "none"}), few)
