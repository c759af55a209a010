"""Run in a child process: the largest errors of the vector functions on instruction sets.

    python vector_math_checks.py ISA...

Prints one JSON object: instruction set -> function -> largest relative error, largest error over
|x|, and the values at `SPECIAL`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import tvm

from compilers.kernels import vector_math
from compilers.kernels.emitter import Emitter, load
from compilers.targets import ISAS, Isa

Reference = Callable[[torch.Tensor], torch.Tensor]
FUNCTIONS: dict[str, tuple[float, float, Reference]] = {
    "exp": (-87, 88, torch.exp),
    "exp2": (-126, 127, torch.exp2),
    "erf": (-6, 6, torch.erf),
    "gelu": (-12, 12, F.gelu),
    "sigmoid": (-80, 80, torch.sigmoid),
    "silu": (-80, 80, F.silu),
    "reciprocal_root": (1e-30, 1e30, torch.rsqrt),
}
SPECIAL = (-np.inf, -1e30, -1000.0, -100.0, -10.0, 0.0, 10.0, 100.0)


def evaluate(name: str, x: np.ndarray, isa: Isa) -> np.ndarray:
    """Over vectors, and over single elements where these do not fit."""
    em = Emitter()
    source, out = em.argument("x", (len(x),)), em.argument("out", (len(x),))

    def piece(first: object, lanes: int) -> None:
        value = getattr(vector_math, name)(em, load(source, [first], lanes), lanes)
        em.store(out, [first], value, lanes)

    em.pieces(len(x), isa.vector_lanes, piece)
    module = tvm.compile(tvm.IRModule({name: em.function(name)}), target=isa.tvm_target())
    result = tvm.runtime.empty(x.shape, "float32")
    module.mod[name](tvm.runtime.tensor(x), result)
    return result.numpy()


def check(isa: Isa) -> dict[str, object]:
    rng = np.random.default_rng(3)
    results: dict[str, object] = {}
    for name, (low, high, reference) in FUNCTIONS.items():
        if name == "reciprocal_root":
            x = np.exp(rng.uniform(np.log(low), np.log(high), 50_003))
        else:
            x = np.concatenate([rng.uniform(low, high, 30_000), rng.normal(size=20_003)])
        x = np.clip(x, low, high).astype(np.float32)
        found = evaluate(name, x, isa).astype(np.float64)
        expected = reference(torch.from_numpy(x.astype(np.float64))).numpy()
        error = np.abs(found - expected)
        positive = x > -1 if name == "gelu" else np.abs(expected) > 1e-37
        special = evaluate(name, np.array(SPECIAL, np.float32), isa)
        results[name] = {
            "relative": float((error[positive] / np.abs(expected[positive])).max()),
            "scaled": float((error / np.maximum(np.abs(x), 1e-30)).max()),
            "special": [float(value) for value in special],
        }
    return results


if __name__ == "__main__":
    print(json.dumps({isa: check(ISAS[isa]) for isa in sys.argv[1:]}))
