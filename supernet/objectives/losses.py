"""Losses of one config's logits; each is a mean over images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ALPHA_MIN, _ALPHA_MAX = -1.0, 1.0
_CLIP = 5.0


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [N, classes] with labels [N]; scalar."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def distillation(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean KL(teacher || student), both logits [N, classes]; scalar.

    No gradient reaches the teacher. Both distributions are softened by `temperature`; the loss is
    not multiplied by its square.
    """
    target = F.softmax(teacher.detach() / temperature, dim=1)
    student = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(student, target, reduction="batchmean")


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits with probabilities `target`, both [N, classes]; scalar."""
    return -(target.detach() * F.log_softmax(logits, dim=1)).sum(1).mean()


def alpha_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean adaptive alpha-divergence of teacher and student (AlphaNet, Wang et al. 2021).

    Of the divergences for alpha -1 and 1, each image takes the larger: the first punishes a student
    that is sure where the teacher is not, the second one that is unsure where the teacher is sure.
    Ratios of probabilities to the power of -1 are clipped at 5.

    Args:
        logits: Of the student, [N, classes].
        teacher: Probabilities of the teacher, [N, classes]; no gradient reaches it.

    Returns:
        Scalar whose value is the divergence and whose gradient that of AlphaNet's surrogate.
    """
    log_q = F.log_softmax(logits, dim=1)
    target = teacher.detach()
    terms = [_divergence(target, log_q, alpha) for alpha in (_ALPHA_MIN, _ALPHA_MAX)]
    values = torch.stack([value for value, _ in terms])  # [2, N]
    surrogates = torch.stack([surrogate for _, surrogate in terms])
    largest = values.argmax(0, keepdim=True)
    value, surrogate = values.gather(0, largest).mean(), surrogates.gather(0, largest).mean()
    return value + surrogate - surrogate.detach()


def _divergence(p: Tensor, log_q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """(value, surrogate with the gradient) of the divergence, [N] each.

    With r = p / q the divergence is sum q (f(r) - f(1)); its gradient is that of
    -sum q rho log q with q and rho = r f'(r) - f(r) held fixed.
    """
    fixed = log_q.detach()
    q = fixed.exp()
    log_ratio = p.clamp(min=torch.finfo(p.dtype).tiny).log() - fixed
    if alpha == 1.0:
        # q r is p: the products stay finite where q vanishes.
        return (p * log_ratio).sum(1), -(p * log_q).sum(1)
    base = 1 / (alpha * (alpha - 1))
    power = (alpha * log_ratio).clamp(max=math.log(_CLIP)).exp()
    value = (q * (power * base - base)).sum(1)
    return value, -(q * (power / alpha + base) * log_q).sum(1)
