from __future__ import annotations

import torch

from supernet.evaluate import evaluate
from supernet.objectives import (
    InstaTuneConfig,
    InstaTuneObjective,
    StepContext,
    cross_entropy,
    distillation,
)
from supernet.samplers import Role


def objective(**settings):
    return InstaTuneObjective(InstaTuneConfig(**settings), 0.0)


def test_the_largest_distils_into_the_others(step, losses):
    """gamma = 0; a sum over configs, not a mean."""
    _, logits, labels = step
    found = losses(objective(temperature=2.0), *step, StepContext(teacher=torch.randn(8, 10)))
    torch.testing.assert_close(found[0], 0.3 * cross_entropy(logits[0], labels))
    for own, loss in zip(logits[1:], found[1:], strict=True):
        distilled = distillation(own, logits[0], 2.0)
        torch.testing.assert_close(loss, 0.3 * cross_entropy(own, labels) + 0.7 * distilled)


def test_the_teacher_distils_into_all_until_its_share_is_over(step, losses):
    """gamma = 1 gates both terms: the largest then teaches none."""
    _, logits, labels = step
    teacher = torch.randn(8, 10)
    both = objective(teacher_until=0.5)
    early = losses(both, *step, StepContext(progress=0.49, teacher=teacher))
    for own, loss in zip(logits, early, strict=True):
        expected = 0.3 * cross_entropy(own, labels) + 0.7 * distillation(own, teacher)
        torch.testing.assert_close(loss, expected)
    late = losses(both, *step, StepContext(progress=0.5, teacher=teacher))
    without = losses(objective(), *step, StepContext())
    torch.testing.assert_close(torch.stack(late), torch.stack(without))


def test_what_it_needs_follows_from_its_settings():
    for until, roles, teacher in ((0.0, {Role.MAX}, False), (0.5, {Role.MAX}, True), (1, set(), 1)):
        config = InstaTuneConfig(teacher_until=until)
        assert InstaTuneObjective.needs(config) == roles
        assert InstaTuneObjective.uses_teacher(config) == teacher


def test_fine_tuning_makes_the_smallest_good_and_keeps_the_largest(
    fine_tune, plainly_trained, small_float_space, digits
):
    """Against ordinary training of the largest for as many steps, and the same slice of it."""
    tuned = fine_tune(objective="instatune", random_configs=1)
    largest, smallest = small_float_space.max_config(), small_float_space.min_config()
    sliced = evaluate(plainly_trained, smallest, digits)
    small = evaluate(tuned, smallest, digits)
    assert small.accuracy > sliced.accuracy + 0.2
    plain, large = (evaluate(net, largest, digits) for net in (plainly_trained, tuned))
    assert large.accuracy > plain.accuracy - 0.03
