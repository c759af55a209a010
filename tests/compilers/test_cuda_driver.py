from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from compilers.cuda_driver import Gpu, find_gpus
from compilers.errors import DeviceError


@pytest.fixture
def driver(tmp_path):
    """Makes a library from C code."""
    if (gcc := shutil.which("gcc")) is None:
        pytest.skip("a stand-in driver needs gcc")

    def compile_(code: str) -> str:
        source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
        source.write_text(code)
        subprocess.run([gcc, "-shared", "-fPIC", "-o", library, source], check=True)
        return str(library)

    return compile_


def test_the_driver_names_its_gpus(driver):
    code = Path(__file__).with_name("paper_driver.c").read_text()
    found = find_gpus(driver(code))
    assert found == (Gpu("Paper GPU", (8, 6)),)
    assert found[0].isa == "sm_86"
    assert Gpu("newer", (12, 0)).isa == "sm_120"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("unsigned flags) { (void)flags; return 0; }", "unsigned f) { return 100; }"),
         r"cuInit returned 100 \(CUDA_ERROR_NO_DEVICE\)"),
        (("*count = 1", "*count = 0"), "finds no GPU that this process may use"),
    ],
)  # fmt: skip
def test_a_driver_without_a_gpu_says_so(driver, changed, message):
    code = Path(__file__).with_name("paper_driver.c").read_text()
    assert changed[0] in code
    with pytest.raises(DeviceError, match=message):
        find_gpus(driver(code.replace(*changed)))


def test_no_driver(tmp_path):
    absent = tmp_path / "libcuda.so.1"
    with pytest.raises(DeviceError, match=f"no NVIDIA driver is installed here: {absent}"):
        find_gpus(str(absent))
