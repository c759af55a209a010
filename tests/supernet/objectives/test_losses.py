from __future__ import annotations

import torch

from supernet.objectives import cross_entropy, distillation


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


def test_cross_entropy_of_the_labels():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    expected = -logits.log_softmax(1)[range(5), labels].mean()
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    assert cross_entropy(logits, labels, 0.1) != expected
