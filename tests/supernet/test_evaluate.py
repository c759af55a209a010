from __future__ import annotations

import numpy as np
import pytest
import torch

from spaces.population import sample
from supernet.errors import DataError
from supernet.evaluate import evaluate, evaluate_module, prepare

# All need a trained supernet.
pytestmark = pytest.mark.slow


def test_evaluation_is_deterministic_and_independent_of_order(trained, tiny_space, digits):
    configs = [tiny_space.from_indices(r) for r in sample(tiny_space, 3, np.random.default_rng(1))]
    forward = [evaluate(trained, c, digits) for c in configs]
    backward = [evaluate(trained, c, digits) for c in reversed(configs)]
    assert forward == backward[::-1]


def test_what_is_scored_is_the_extracted_integer_module(trained, tiny_space, digits):
    values = {n: 8 for n in tiny_space.names if n.endswith("w_bits")}
    config = tiny_space.config({**tiny_space.max_config(), **values})
    subnet = prepare(trained, config, digits)
    direct = evaluate_module(subnet, digits.selection.images, digits.selection.labels)
    assert direct == evaluate(trained, config, digits, "selection")
    assert direct.count == len(digits.selection)
    # Breaking one integer tensor of the module breaks the score: nothing else is evaluated.
    subnet.get_submodule("head").weight.zero_()
    broken = evaluate_module(subnet, digits.selection.images, digits.selection.labels)
    assert broken.accuracy < 0.3


def test_int8_is_about_as_good_as_float(trained, tiny_space, digits):
    largest = tiny_space.max_config()
    values = {n: 8 for n in tiny_space.names if n.endswith("w_bits")}
    float_score = evaluate(trained, largest, digits)
    int_score = evaluate(trained, tiny_space.config({**largest, **values}), digits)
    assert float_score.accuracy > 0.9
    assert int_score.accuracy > float_score.accuracy - 0.02


def test_recalibration_is_part_of_every_evaluation(trained, tiny_space, digits):
    config = tiny_space.min_config()
    good = evaluate(trained, config, digits)
    with torch.no_grad():
        for norm in trained.norms():
            norm.running_mean.fill_(5)
            norm.running_var.fill_(100)
    stale = trained.extract(config)
    bad = evaluate_module(stale, digits.selection.images, digits.selection.labels)
    assert bad.loss > good.loss
    assert evaluate(trained, config, digits) == good


def test_accuracy_and_loss_of_a_known_classifier(digits):
    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10).index_fill(1, torch.tensor([3]), 1.0)

    score = evaluate_module(Constant(), digits.report.images, digits.report.labels)
    share = float((digits.report.labels == 3).double().mean())
    assert score.accuracy == pytest.approx(share)
    log_sum = np.log(np.e + 9)
    assert score.loss == pytest.approx(share * (log_sum - 1) + (1 - share) * log_sum)


def test_unknown_split(trained, tiny_space, digits):
    with pytest.raises(DataError, match="validation"):
        evaluate(trained, tiny_space.min_config(), digits, "validation")
