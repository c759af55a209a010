"""Training objectives of the configs of one step."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [N, classes] with labels [N]; scalar."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher || student), both logits [N, classes]; scalar.

    In-place distillation (Yu and Huang 2019): the teacher is the step's largest config; its
    logits are detached here, so that no gradient reaches it.
    """
    target = F.softmax(teacher.detach(), dim=1)
    student = F.log_softmax(logits, dim=1)
    return F.kl_div(student, target, reduction="batchmean")
