"""Attention, softmax and normalisation on every instruction set of this machine, in children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from compilers.errors import KernelError
from compilers.kernels import Attention, Norm, Softmax
from compilers.targets import ISAS, host_isas

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).parent / "transformer_checks.py"


def child(*arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TVM_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, str(CHECKS), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()[-1]


def every(isa: str) -> int:
    # avx512 has the float instructions of avx512_vnni.
    return 5 if isa == "avx512" else 1


@pytest.fixture(scope="module")
def children() -> Iterator[dict[tuple[str, str], Future[str]]]:
    """(what, ISA) -> what a child printed, one child per processor at a time."""
    isas = host_isas()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outputs = {("outputs", isa): pool.submit(child, isa, str(every(isa))) for isa in isas}
        threads = {("threads", isas[0]): pool.submit(child, isas[0], "threads")}
        yield outputs | threads


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_outputs_match_torch_and_stay_in_bounds(
    isa: str, children: dict[tuple[str, str], Future[str]]
) -> None:
    result = json.loads(children["outputs", isa].result())
    assert result["failures"] == []
    assert result["cases"] * every(isa) >= 30
    assert result["elements"] > 1000
    assert result["differing"] <= 2e-4 * result["elements"]


@pytest.mark.slow
def test_two_threads_give_the_same_bits_as_one(
    children: dict[tuple[str, str], Future[str]],
) -> None:
    result = json.loads(children["threads", host_isas()[0]].result())
    assert result["failures"] == []
    assert result["cases"] == 4


def attention(**changes: object) -> Attention:
    """2 heads of 16 over 4 tokens, in one tensor of 96 columns."""
    fields: dict[str, object] = {
        "queries": 4, "keys": 4, "heads": 2, "kv_heads": 2, "head_dim": 16, "value_dim": 16,
        "scale": 0.25, "causal": False, "q_stride": 96, "q_offset": 0, "k_stride": 96,
        "k_offset": 32, "v_stride": 96, "v_offset": 64,
    }  # fmt: skip
    return Attention(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": 0}, "0 queries"),
        ({"heads": 3, "q_stride": 112, "k_stride": 112}, "3 heads"),
        ({"head_dim": 12}, "head_dim 12"),
        ({"head_dim": 8, "rope": True}, "head_dim 8 is not a multiple of 16"),
        ({"value_dim": 4}, "value_dim 4"),
        ({"queries": 3, "causal": True}, "3 queries and 4 keys"),
        ({"queries": 3, "rope": True}, "3 queries and 4 keys"),
        ({"causal": True, "bias": True}, "bias"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"v_offset": 65}, "v: 32 columns from 65 on leave a tensor of 96"),
        ({"output_dtype": "int8"}, "'int8'"),
    ],
)
def test_attention_that_no_template_covers_is_refused(
    changes: dict[str, object], words: str
) -> None:
    attention()
    with pytest.raises(KernelError, match=words):
        attention(**changes)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Norm(0, 8), "0 rows"),
        (lambda: Norm(4, 12), "12 channels"),
        (lambda: Norm(4, 8, -1.0), "epsilon -1.0"),
        (lambda: Norm(4, 8, input_dtype="int8"), "'int8'"),
        (lambda: Softmax(4, 0), "4 x 0"),
    ],
)
def test_other_kernels_that_no_template_covers_are_refused(build: object, words: str) -> None:
    with pytest.raises(KernelError, match=words):
        build()  # type: ignore[operator]


def test_symbols_differ_in_every_field() -> None:
    isa = ISAS["avx2"]
    kernels = [
        attention(),
        attention(causal=True),
        attention(rope=True),
        attention(bias=True),
        attention(scale=0.5),
        attention(output_dtype="uint8"),
        attention(q_offset=32, k_offset=0),
        Norm(4, 8),
        Norm(4, 8, centred=False),
        Norm(4, 8, 1e-6),
        Softmax(4, 8),
    ]
    assert len({kernel.symbol(isa) for kernel in kernels}) == len(kernels)
