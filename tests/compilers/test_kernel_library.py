"""The kernel library compiles once, for any number of processes, always to the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compilers import kernel_library
from compilers.kernel_library import KernelLibrary, generator_key
from compilers.kernels import Gemm
from compilers.targets import ISAS

ROOT = Path(__file__).parents[2]
CHILD = """
import hashlib, json, sys
from pathlib import Path
from compilers import kernel_library
from compilers.kernel_library import KernelLibrary
from compilers.kernels import Depthwise, Gemm
from compilers.targets import ISAS
compiled = []
library = KernelLibrary(Path(sys.argv[1]), compiled.append)
kernels = [Gemm(9, 16, 24), Gemm(9, 16, 24, "uint8", "relu", "uint8", "uint8"),
           Depthwise(6, 6, 24, 5, 1, "uint8")]
isa = ISAS["avx2"]
first = [library.object_file(kernel, isa) for kernel in kernels]
count = len(compiled)
second = [library.object_file(kernel, isa) for kernel in kernels]
print(json.dumps({
    "names": [path.name for path in first], "same": first == second, "compiled": count,
    "again": len(compiled) - count,
    "hashes": [hashlib.sha256(path.read_bytes()).hexdigest() for path in first],
}))
"""


def start(folder: Path, seed: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_concurrent_processes_share_one_folder(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    both = [start(shared, "1"), start(shared, "2")]
    results = [result(process) for process in both]
    for found in results:
        assert found["same"]
        assert found["again"] == 0
    later = result(start(shared, "3"))
    assert later["compiled"] == 0
    alone = result(start(other, "4"))
    assert alone["compiled"] == 3
    assert alone["names"] == later["names"] == results[0]["names"]
    assert alone["hashes"] == later["hashes"] == results[1]["hashes"]
    files = [path for path in shared.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == sorted(later["names"])
    assert all(path.parent.name == generator_key() for path in files)


def test_a_file_that_exists_is_used_without_compiling(tmp_path: Path) -> None:
    library = KernelLibrary(tmp_path, on_compile=lambda kernel: pytest.fail(str(kernel)))
    kernel, isa = Gemm(4, 8, 8), ISAS["avx2"]
    path = library.path(kernel, isa)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"object")
    assert library.object_file(kernel, isa) == path


@pytest.mark.slow
def test_what_killed_processes_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    folder = tmp_path / "avx2" / generator_key()
    old, recent = folder / ".compile-old", folder / ".compile-recent"
    for path in (old, recent):
        path.mkdir(parents=True)
        (path / "kernel.o").write_bytes(b"half")
    hour_ago = time.time() - 3700
    os.utime(old, (hour_ago, hour_ago))
    assert result(start(tmp_path, "1"))["compiled"] == 3
    assert not old.exists()
    assert recent.exists()


@pytest.mark.parametrize("name", ["kernel_library.py", "intrinsics.py", "kernels/gemm.py"])
def test_the_key_changes_with_every_source_that_decides_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sources = Path(kernel_library.__file__).parent
    shutil.copytree(sources, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kernel_library, "_HERE", tmp_path / "copy")
    assert generator_key.__wrapped__() == generator_key()
    with (tmp_path / "copy" / name).open("a") as file:
        file.write("# changed\n")
    assert generator_key.__wrapped__() != generator_key()
