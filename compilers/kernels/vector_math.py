"""Transcendental functions of float32 vectors, as minimax polynomials.

Every operation is a vector instruction that all targets have, and every multiply-add is fused, so
that all instruction sets give the same bits. Relative errors stay below 1e-6 unless a function
says otherwise. An argument `value` may be any expression; it is evaluated once.
"""

from __future__ import annotations

from collections.abc import Sequence

from compilers.intrinsics import fused_multiply_add, square_root
from compilers.kernels.emitter import Emitter, Expr, maximum, minimum, reinterpret, splat

# 2^f for |f| <= 1/2, relative error 7.5e-8.
_EXP2 = (
    1.0000001192092896,
    0.6931469440460205,
    0.24022120237350464,
    0.05550713092088699,
    0.009675540961325169,
    0.001327647129073739,
)
_LOG2_E = 1.4426950216293335
_LOG2_E_REST = 1.9259629911266175e-08
_MIN_EXPONENT, _MAX_EXPONENT = -126.0, 127.0
# Adding it rounds to an integer, which then stands in the low bits of the sum.
_ROUND = 1.5 * 2.0**23

# erf(x) / x in s = 0.13563 x^2 - 1, relative error 8e-8 for |x| < 3.84. At the limit, where erf is
# within half a bit of 1, the polynomial evaluates to exactly 1.
_ERF_LIMIT = 3.8399949073791504
_ERF_SQUARE = 0.1356336772441864
_ERF = (
    0.36823946237564087,
    -0.18376579880714417,
    0.13651719689369202,
    -0.11053714156150818,
    0.09082169085741043,
    -0.0731988400220871,
    0.05620739981532097,
    -0.039984289556741714,
    0.027783194556832314,
    -0.020071927458047867,
    0.011229608207941055,
    -0.0031587390694767237,
    0.0022619692608714104,
    -0.003264455823227763,
    0.0013373352121561766,
)


def _polynomial(em: Emitter, x: Expr, coefficients: Sequence[float], lanes: int) -> Expr:
    """Horner's rule; coefficients from the constant upwards."""
    total = splat(coefficients[-1], lanes)
    for coefficient in reversed(coefficients[:-1]):
        total = em.let(fused_multiply_add(total, x, splat(coefficient, lanes), lanes))
    return total


def _scaled(em: Emitter, fraction: Expr, shifted: Expr, lanes: int) -> Expr:
    """2^(fraction + n), the integer n being `shifted` - `_ROUND`."""
    power = _polynomial(em, em.let(fraction), _EXP2, lanes)
    exponent = reinterpret(shifted, "int32", lanes) * splat(1 << 23, lanes, "int32")
    return em.let(reinterpret(reinterpret(power, "int32", lanes) + exponent, "float32", lanes))


def exp2(em: Emitter, value: Expr, lanes: int) -> Expr:
    """2^value for value <= 127. Below -126, and for -inf, it is 2^-126."""
    x = em.let(maximum(value, splat(_MIN_EXPONENT, lanes)))
    # TVM would simplify x - (x + c - c) to 0; it does not look into the intrinsic.
    one = splat(1.0, lanes)
    shifted = em.let(fused_multiply_add(x, one, splat(_ROUND, lanes), lanes))
    return _scaled(em, x - (shifted - splat(_ROUND, lanes)), shifted, lanes)


def exp(em: Emitter, value: Expr, lanes: int) -> Expr:
    """e^value, kept within e^-87.3 .. e^88."""
    low, high = splat(_MIN_EXPONENT / _LOG2_E, lanes), splat(_MAX_EXPONENT / _LOG2_E, lanes)
    x = em.let(minimum(maximum(value, low), high))
    log2_e = splat(_LOG2_E, lanes)
    shifted = em.let(fused_multiply_add(x, log2_e, splat(_ROUND, lanes), lanes))
    fraction = fused_multiply_add(x, log2_e, splat(_ROUND, lanes) - shifted, lanes)
    fraction = fused_multiply_add(x, splat(_LOG2_E_REST, lanes), fraction, lanes)
    return _scaled(em, fraction, shifted, lanes)


def erf(em: Emitter, value: Expr, lanes: int) -> Expr:
    """The error function; exactly 1 or -1 beyond +-3.84."""
    limit = splat(_ERF_LIMIT, lanes)
    x = em.let(minimum(maximum(value, splat(-_ERF_LIMIT, lanes)), limit))
    square = em.let(x * x)
    s = em.let(fused_multiply_add(square, splat(_ERF_SQUARE, lanes), splat(-1.0, lanes), lanes))
    return em.let(x * _polynomial(em, s, _ERF, lanes))


def gelu(em: Emitter, value: Expr, lanes: int) -> Expr:
    """x * Phi(x) by the exact erf (Hendrycks and Gimpel, 2016).

    The error is below 4e-7 * |x|: for x < -1 relative precision is lost, as in every sum 1 + erf.
    """
    value = em.let(value)
    half = em.let(value * splat(0.5, lanes))
    inner = erf(em, value * splat(0.7071067690849304, lanes), lanes)
    return em.let(fused_multiply_add(half, inner, half, lanes))


def sigmoid(em: Emitter, value: Expr, lanes: int) -> Expr:
    """1 / (1 + e^-x)."""
    one = splat(1.0, lanes)
    return em.let(one / (one + exp(em, splat(0.0, lanes) - value, lanes)))


def silu(em: Emitter, value: Expr, lanes: int) -> Expr:
    """x * sigmoid(x) (Elfwing et al., 2017)."""
    value = em.let(value)
    inverse = exp(em, splat(0.0, lanes) - value, lanes)
    return em.let(value / (splat(1.0, lanes) + inverse))


def reciprocal_root(em: Emitter, value: Expr, lanes: int) -> Expr:
    """1 / sqrt(value) for positive values."""
    return em.let(splat(1.0, lanes) / square_root(value, lanes))
