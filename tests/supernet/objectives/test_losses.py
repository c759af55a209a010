from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supernet.objectives import alpha_divergence, cross_entropy, distillation, soft_cross_entropy


def test_distillation_is_kl_from_the_teacher_and_spares_it():
    teacher = torch.randn(6, 4, requires_grad=True)
    student = torch.randn(6, 4, requires_grad=True)
    loss = distillation(student, teacher)
    p, q = teacher.softmax(1), student.softmax(1)
    torch.testing.assert_close(loss, (p * (p / q).log()).sum(1).mean())
    loss.backward()
    assert teacher.grad is None
    # The gradient of KL(p || q) by the student's logits.
    torch.testing.assert_close(student.grad, (q - p).detach() / 6)
    assert distillation(teacher, teacher).abs() < 1e-6


def test_temperature_softens_both_distributions():
    teacher, student = torch.randn(6, 4), torch.randn(6, 4)
    soft = distillation(student, teacher, temperature=4.0)
    torch.testing.assert_close(soft, distillation(student / 4, teacher / 4))


def test_cross_entropy_of_the_labels():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    expected = -logits.log_softmax(1)[range(5), labels].mean()
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    assert cross_entropy(logits, labels, 0.1) != expected


def test_soft_cross_entropy_of_one_hot_labels_is_that_of_the_labels():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    hard = F.one_hot(labels, 3).float()
    torch.testing.assert_close(soft_cross_entropy(logits, hard), cross_entropy(logits, labels))


def divergence(p, q, alpha):
    """D per image, straight from its definition, without the clipping of ratios."""
    ratio = p / q
    if alpha == 1:
        return (q * ratio * ratio.log()).sum(1)
    return (q * (ratio**alpha - 1) / (alpha * (alpha - 1))).sum(1)


@pytest.mark.parametrize("sharpness", [0.2, 0.3])
def test_alpha_divergence_has_the_value_and_the_gradient_of_the_larger(sharpness):
    """Mild logits, whose ratios no clip reaches."""
    torch.manual_seed(0)
    teacher = (sharpness * torch.randn(40, 5)).softmax(1)
    student = (sharpness * torch.randn(40, 5)).requires_grad_()
    loss = alpha_divergence(student, teacher)
    loss.backward()
    exact = student.detach().clone().requires_grad_()
    both = torch.stack([divergence(teacher, exact.softmax(1), alpha) for alpha in (-1, 1)])
    assert 0 < both.argmax(0).float().mean() < 1  # each is the larger for some image
    largest = both.max(0).values.mean()
    largest.backward()
    torch.testing.assert_close(loss, largest)
    torch.testing.assert_close(student.grad, exact.grad, atol=1e-6, rtol=1e-4)


def test_alpha_divergence_clips_ratios_and_stays_finite():
    teacher = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    student = torch.tensor([[-200.0, 200.0, 0.0], [0.0, 50.0, -50.0]], requires_grad=True)
    loss = alpha_divergence(student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    # Where alpha = -1 is the larger, q (r^-1 - 1) / 2 is at most (5 - 1) / 2 with the clip.
    sure = torch.tensor([[8.0, 0.0]])
    unsure = torch.tensor([[0.05, 0.95]])
    forward_kl = divergence(unsure, sure.softmax(1), 1)
    clipped = alpha_divergence(sure, unsure)
    assert clipped <= max(float(forward_kl), 2.0) + 1e-5
    assert alpha_divergence(student.detach(), student.detach().softmax(1)).abs() < 1e-6
