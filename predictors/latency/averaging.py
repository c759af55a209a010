"""Gaussian processes averaged over hypotheses about their weights and about disturbed samples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from predictors.latency.configs import FloatArray

# Draws of the weights: around each hypothesis, and a share around what is expected of any device.
_DRAWS, _BROAD = 256, 0.1
_JITTER, _NOISE_JITTER, _BROAD_WIDTH, _SCALE_WIDTH = 0.7, 0.7, 1.5, 0.7
_LEAST, _MOST, _LEAST_NOISE, _MOST_NOISE = -9.0, 3.0, -6.0, 1.0
_LEVEL_VARIANCE = 10.0
# A sample is disturbed with this probability, and its error then is of this size at least.
_DISTURBED, _DISTURBED_VARIANCE = 0.1, 3.0
# With more samples each hypothesis judges by itself which of them are disturbed.
_FEW = 24
# Of so few samples, two may be disturbed.
_PAIRS = 12
_FAR = 4.0
# Hypotheses of which the uncertainty is made: the likeliest, fewer with many samples.
_LIKELIEST = 16
_LARGEST_BATCH = 64 << 20


@dataclass(frozen=True)
class AveragedProcess:
    """What remains of the hypotheses once the samples are known.

    Attributes:
        coefficients: (J, n) of each kernel to each sample, for the mean.
        level: Mean of the level's kernel, which is constant.
        weights: (h, J) kernel weights of the likeliest hypotheses.
        solved: (h, n) of the centred targets by their covariances.
        inverse: (h, n, n) of their covariances.
        noise: (h,) noise variance of an undisturbed measurement.
        shares: (h,) probabilities of these hypotheses.
    """

    coefficients: FloatArray
    level: float
    weights: FloatArray
    solved: FloatArray
    inverse: FloatArray
    noise: FloatArray
    shares: FloatArray

    @classmethod
    def of(
        cls, kernels: FloatArray, target: FloatArray, hypotheses: FloatArray, expected: FloatArray
    ) -> Self:
        """Weigh the hypotheses by their marginal likelihood.

        Args:
            kernels: (J, n, n) between the samples.
            target: (n,), centred roughly, of variance about 1.
            hypotheses: (h, J + 1) logarithms of weights and noise variance.
            expected: (J + 1,) the same of any device.
        """
        weights, noise = _draws(hypotheses, expected)
        count = len(target)
        extra = _disturbances(target)
        if count > _FEW:
            extra = _judged(kernels, target, weights, noise)
        members = len(extra)
        logs = np.log(_DISTURBED) * (extra > 0.0).sum(axis=1) if count <= _FEW else np.zeros(1)
        size = max(1, _LARGEST_BATCH // (8 * members * count * count))
        evidence = np.empty((len(weights), members))
        solved = np.empty((len(weights), members, count))
        for start in range(0, len(weights), size):
            part = slice(start, start + size)
            covariance = _covariance(kernels, weights[part], noise[part])[:, None] + _diagonal(
                extra
            )
            lower = np.linalg.cholesky(covariance)
            aims = np.broadcast_to(target[:, None], (*covariance.shape[:-1], 1))
            found = np.linalg.solve(covariance, aims)[..., 0]
            halves = np.log(np.diagonal(lower, axis1=-2, axis2=-1)).sum(axis=-1)
            solved[part] = found
            evidence[part] = -0.5 * (found @ target) - halves + logs
        shares = np.exp(evidence - evidence.max())
        shares /= shares.sum()
        coefficients = np.einsum("sm,sj,smn->jn", shares, weights, solved)
        level = _LEVEL_VARIANCE * float(np.einsum("sm,smn->", shares, solved))
        likeliest = np.argsort(-shares, axis=None)[: max(1, min(_LIKELIEST, 4000 // count**2))]
        drawn, member = np.unravel_index(likeliest, shares.shape)
        kept = shares[drawn, member]
        covariance = _covariance(kernels, weights[drawn], noise[drawn]) + _diagonal(extra)[member]
        return cls(
            coefficients,
            level,
            weights[drawn],
            solved[drawn, member],
            np.linalg.inv(covariance).astype(np.float64),
            noise[drawn],
            kept / kept.sum(),
        )

    def variance(self, kernels: FloatArray, prior: FloatArray, mean: FloatArray) -> FloatArray:
        """Variance (m,) of one measurement of other configs.

        Args:
            kernels: (J, m, n) between them and the samples.
            prior: (J, m): each kernel of a config with itself.
            mean: (m,) the prediction.
        """
        total = np.zeros(len(mean))
        for weights, solved, inverse, noise, share in zip(
            self.weights, self.solved, self.inverse, self.noise, self.shares, strict=True
        ):
            across = np.tensordot(weights, kernels, axes=1) + _LEVEL_VARIANCE
            known = np.einsum("mn,mn->m", across @ inverse, across)
            own = weights @ prior + _LEVEL_VARIANCE - known
            apart = across @ solved - mean
            total += share * (np.maximum(own, 0.0) + noise + apart**2)
        return total


def _draws(hypotheses: FloatArray, expected: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights (s, J) and noise variances (s,): quasi-random around the hypotheses."""
    kernels = len(expected) - 1
    points = qmc.Sobol(kernels + 2, seed=1).random(_DRAWS)
    normal = ndtri(np.clip(points, 5e-4, 1.0 - 5e-4))
    broad = int(_BROAD * _DRAWS) if len(hypotheses) else _DRAWS
    logs = expected + _BROAD_WIDTH * normal[:, : kernels + 1]
    if len(hypotheses):
        which = np.arange(_DRAWS - broad) % len(hypotheses)
        around = np.clip(hypotheses[which], _LEAST, _MOST)
        around[:, -1] = np.clip(hypotheses[which, -1], _LEAST_NOISE, _MOST_NOISE)
        width = np.array([*[_JITTER] * kernels, _NOISE_JITTER])
        logs[broad:] = around + width * normal[broad:, : kernels + 1]
    # All variances of one device together: how far apart its latencies are.
    logs = logs + 2.0 * _SCALE_WIDTH * normal[:, -1:]
    return np.exp(logs[:, :-1]), np.exp(logs[:, -1])


def _covariance(kernels: FloatArray, weights: FloatArray, noise: FloatArray) -> FloatArray:
    covariance: FloatArray = np.tensordot(weights, kernels, axes=1) + _LEVEL_VARIANCE
    return covariance + noise[:, None, None] * np.eye(kernels.shape[1])


def _diagonal(extra: FloatArray) -> FloatArray:
    """Matrices (m, n, n) with these diagonals (m, n)."""
    diagonal: FloatArray = extra[:, :, None] * np.eye(extra.shape[1])
    return diagonal


def _disturbances(target: FloatArray) -> FloatArray:
    """Additional variances (m, n): none, of one sample, and of two where there are few."""
    count = len(target)
    each = np.diag(np.maximum((target - np.median(target)) ** 2, _DISTURBED_VARIANCE))
    pairs = [each[a] + each[b] for a, b in combinations(range(count), 2) if count <= _PAIRS]
    return np.vstack([np.zeros(count), each, *pairs])


def _judged(
    kernels: FloatArray, target: FloatArray, weights: FloatArray, noise: FloatArray
) -> FloatArray:
    """Additional variances (1, n) of samples far off what the others predict.

    The hypotheses' median stands for all of them; what is far off is taken out and judged again.
    """
    extra = np.zeros(len(target))
    middle = np.exp(np.median(np.log(weights), axis=0)), np.exp(np.median(np.log(noise)))
    covariance = _covariance(kernels, middle[0][None], np.array([middle[1]]))[0]
    for _ in range(3):
        inverse = np.linalg.inv(covariance + np.diag(extra))
        # Each sample's error when it is left out.
        errors = (inverse @ target) / np.diag(inverse)
        scale = 1.4826 * float(np.median(np.abs(errors)))
        far = np.abs(errors) > _FAR * max(scale, 1e-6)
        extra = np.where(far, np.maximum(errors**2, _DISTURBED_VARIANCE), 0.0)
    return extra[None]
