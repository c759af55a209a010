"""Run in a child process: kernels that move data or compute element by element, on one ISA.

    python movement_checks.py ISA

The arguments lie between guard pages, as in `case_execution`. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import cycle, product

import numpy as np
from case_execution import run
from kernel_case import DTYPES, OUTPUT, RESIDUAL, Case, activate, draw, real, stored

from compilers.kernels import Binary, Concat, Copy, Embedding, Unary
from compilers.kernels.base import LayerParams
from compilers.targets import ISAS
from spaces.layer_spec import Activation


def moving(rng: np.random.Generator) -> Iterator[Case]:
    views: list[tuple[tuple[int, ...], tuple[int, int], tuple[int, ...], tuple[int, ...], int]] = [
        ((20, 48), (20, 33), (20, 33), (48, 1), 15),  # columns
        ((20, 48), (3, 48), (3, 48), (48, 1), 17 * 48),  # the last rows
        ((20, 48), (48, 20), (48, 20), (1, 48), 0),  # a transposition
        ((1, 3, 8, 12), (6, 48), (2, 3, 3, 4, 4), (48, 4, 96, 12, 1), 0),  # patches
        ((7, 5), (4, 35), (4, 35), (0, 1), 0),  # repetition
        ((7, 5), (7, 20), (7, 5, 4), (5, 1, 0), 0),
        ((7, 5), (1, 1), (), (), 34),
    ]
    for (source, shape, sizes, strides, offset), dtype in zip(views, cycle(DTYPES), strict=False):
        x = draw(rng, source, dtype)
        steps = [stride * x.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(x.reshape(-1)[offset:], sizes, steps)
        kernel = Copy(source, *shape, sizes, strides, offset, dtype)
        yield Case(kernel, x, None, LayerParams(), view.reshape(shape), exact=True)
    for (sizes, other), axis, dtype in product((((1, 20), 40), ((5, 19), 3)), (0, 1), DTYPES):
        kernel = Concat(sizes, other, axis, dtype)
        parts = [draw(rng, kernel.part_shape(i), dtype) for i in range(2)]
        yield Case(kernel, *parts, LayerParams(), np.concatenate(parts, axis), exact=True)
    table = draw(rng, (30, 43), "float32")
    tokens = np.array([[0, 29, 7, 7, -1, 30, 2**40, -(2**40)]])
    expected = table[np.clip(tokens[0], 0, 29)]
    yield Case(Embedding(8, 30, 43), tokens, None, LayerParams(table), expected, exact=True)


def computing(rng: np.random.Generator) -> Iterator[Case]:
    params = LayerParams(residual=RESIDUAL, output=OUTPUT)
    types = cycle(product(DTYPES, DTYPES))
    for activation, output in zip(Activation, cycle(DTYPES), strict=False):
        x = draw(rng, (3, 43), "float32")
        unary = Unary(3, 43, activation, output)
        expected = stored(activate(x.astype(np.float64), activation), output)
        yield Case(unary, x, None, params, expected)
    for activation, combine, broadcast in product(Activation, ("add", "multiply"), (False, True)):
        output, other = next(types)
        other = "float32" if broadcast else other
        x, y = (draw(rng, (n, 43), d) for n, d in ((3, "float32"), (1 if broadcast else 3, other)))
        factor = real(y, RESIDUAL)
        value = x + factor if combine == "add" else x * factor
        binary = Binary(3, 43, combine, broadcast, activation, other, output)
        yield Case(binary, x, y, params, stored(activate(value, activation), output))


def check(isa: str) -> dict[str, object]:
    rng = np.random.default_rng(3)
    failures: list[str] = []
    count = 0
    for case in (*moving(rng), *computing(rng)):
        count += 1
        found, wrong = run(case, ISAS[isa])
        difference = np.abs(found.astype(np.float64) - case.expected).max()
        scale = max(1.0, float(np.abs(case.expected).max()))
        allowed = 0.0 if case.exact else 1.0 if found.dtype == np.uint8 else 2e-6 * scale
        if not difference <= allowed:
            wrong.append(f"differs by {difference}")
        failures += [f"{case.kernel}: {text}" for text in wrong]
    return {"cases": count, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1])))
