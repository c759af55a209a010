"""Filling the library: chosen once per instruction set, measured once per device, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compilers.build import build_library, kernel_records
from compilers.devices import DeviceConfig, LocalCpu
from compilers.devices.base import Device
from compilers.errors import DeviceError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_fill import LibraryFill
from compilers.kernel_library import KernelLibrary
from compilers.kernel_records import KernelChoice, TileField, choice_key
from compilers.kernels import Depthwise, Gemm, GlobalPool
from compilers.record_file import append_lines
from compilers.runtime import Model
from compilers.targets import resolve_isa
from tests.compilers.fill_child import KERNELS, capabilities

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("fill_child.py")
ISA = resolve_isa("native")
FEW = [Gemm(5, 8, 40), Depthwise(5, 5, 8, 3, 1, "uint8"), GlobalPool(4, 8)]


def fill(folder: Path, device: Device, **options) -> LibraryFill:
    found = replace(capabilities(ISA.name), hardware=options.pop("hardware", "test"))
    holding = (options.pop("compiling", nullcontext), options.pop("measuring", nullcontext))
    return LibraryFill(KernelLibrary(folder), device, found, *holding, **options)


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def mine(device: LocalCpu) -> Iterator[LocalCpu]:
    """The device under the settings that the children use."""
    with LocalCpu(DeviceConfig(name="d", isa=ISA.name), device.cache) as local:
        yield local


@pytest.mark.slow
def test_choices_are_made_once_and_latencies_once_per_device(tmp_path, device):
    held: list[str] = []

    @contextmanager
    def holding(name: str) -> Iterator[None]:
        assert held.count("(") == held.count(")"), "compiling and measuring at the same time"
        held.extend([name, "("])
        yield
        held.append(")")

    run = fill(
        tmp_path,
        device,
        compiling=lambda: holding("compile"),
        measuring=lambda: holding("measure"),
    )
    seen: list[tuple[int, int]] = []
    first = run.run(FEW, lambda done, total: seen.append((done, total)))
    assert (first.kernels, first.known, first.timed, first.tuned) == (3, 0, 3, 3)
    candidates = sum(max(1, len(kernel.candidates(ISA))) for kernel in FEW)
    assert first.compiled == candidates
    assert first.complete
    assert seen == [(0, 3), (3, 3)]
    # First what a call costs, then the kernels.
    assert [name for name in held if name not in "()"] == 2 * ["compile", "measure"]
    library = KernelLibrary(tmp_path)
    timings = library.timings(run.identity, ISA)
    assert set(timings) == set(FEW)
    for kernel, timing in timings.items():
        assert 0 < timing.p10_us <= timing.median_us <= timing.p90_us
        assert timing.call_us >= 0
        assert timing.latency_us == timing.median_us + timing.call_us
        used = library.tile(kernel, ISA)
        assert (None if timing.tile is None else timing.tile.tile) == used

    again = fill(tmp_path, device).run(FEW)
    assert (again.known, again.timed, again.compiled, again.complete) == (3, 0, 0, True)

    other = fill(tmp_path, device, hardware="another machine").run(FEW)
    assert (other.known, other.timed, other.reused, other.tuned) == (0, 3, 3, 0)
    assert other.compiled == 0
    assert len(library.choices()) == 3

    stopped = fill(tmp_path, device).run([Gemm(6, 8, 8)], deadline=time.monotonic() - 1)
    assert (stopped.timed, stopped.complete) == (0, False)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("as") is None, reason="no assembler is installed")
def test_a_candidate_that_crashes_or_hangs_is_lost_alone(tmp_path, device):
    library = KernelLibrary(tmp_path)
    crashing, hanging, hopeless, healthy = (Gemm(m, 8, 40) for m in (4, 5, 6, 7))
    second = {kernel: kernel.candidates(ISA)[1] for kernel in (crashing, hanging)}

    def sabotage(kernel, tile, code):
        path, symbol = library.path(kernel, ISA, tile), kernel.symbol(ISA, tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f"__tvm_ffi_{symbol}"
        text = f".globl {name}\n.type {name}, @function\n{name}: {code.format(name)}\n"
        subprocess.run(["as", "-o", str(path)], input=text, text=True, check=True)

    # A jump to 0: a segmentation fault.
    sabotage(crashing, second[crashing], "xor %eax, %eax\njmp *%rax")
    sabotage(hanging, second[hanging], "jmp {}")
    sabotage(hopeless, None, "ud2")
    for tile in hopeless.candidates(ISA)[1:]:
        sabotage(hopeless, tile, "ud2")
    run = fill(tmp_path, device, time_timeout=5.0)
    report = run.run([crashing, hanging, hopeless, healthy])
    assert report.complete
    assert (report.timed, report.failed) == (3, 1)
    assert report.failed_candidates == 2 + len(hopeless.candidates(ISA))
    choices = library.choices()
    for kernel, reason in ((crashing, "SIGSEGV"), (hanging, "longer than 5 s")):
        (lost,) = choices[choice_key(kernel, ISA)].failed
        assert lost.tile.tile == second[kernel]
        assert reason in lost.error
        assert library.tile(kernel, ISA) != second[kernel]
    assert choices[choice_key(healthy, ISA)].failed == ()
    # What is known to fail is not tried again.
    again = fill(tmp_path, device).run([crashing, hanging, hopeless, healthy])
    assert (again.known, again.timed, again.complete) == (4, 0, True)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path, mine):
    process = start(tmp_path, 1)
    choices = KernelLibrary(tmp_path).choices_file
    deadline = time.monotonic() + 100
    while not choices.exists() or choices.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    damage: list[str] = []
    run = fill(tmp_path, mine)
    run.library = KernelLibrary(tmp_path, on_damage=damage.append)
    report = run.run(KERNELS)
    assert report.complete
    assert 1 <= report.known < len(KERNELS)
    assert report.known + report.timed == len(KERNELS)
    assert damage == []


@pytest.mark.slow
def test_two_processes_fill_one_library(tmp_path, mine):
    reports = [result(process) for process in [start(tmp_path, 2), start(tmp_path, 3)]]
    damage: list[str] = []
    library = KernelLibrary(tmp_path, on_damage=damage.append)
    assert all(report["complete"] for report in reports)
    assert {key[0] for key in library.choices()} == set(KERNELS)
    later = fill(tmp_path, mine).run(KERNELS)
    assert (later.known, later.compiled) == (len(KERNELS), 0)
    assert damage == []


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tmp_path):
    # The records would find room, an object file does not.
    report = result(start(tmp_path, 2, 10_000))
    assert "cannot be written" in report["error"]
    assert "NETCARVE_CACHE" in report["error"]
    assert not list(tmp_path.glob("*/*/*.o"))
    assert KernelLibrary(tmp_path, on_damage=pytest.fail).choices() == {}


def choice(kernel, tile):
    return KernelChoice(kernel=kernel, isa=ISA.name, tile=TileField.of(tile))


def test_a_damaged_line_costs_that_line_and_is_told(tmp_path):
    kernel = Gemm(30, 8, 72)
    tile = kernel.candidates(ISA)[1]
    library = KernelLibrary(tmp_path)
    library.store_choices([choice(kernel, tile), choice(Gemm(31, 8, 72), tile)])
    append_lines(library.choices_file, [b"{}\n"])
    with library.choices_file.open("ab") as file:
        file.write(b'{"kernel": {"template"')
    damage: list[str] = []
    damaged = KernelLibrary(tmp_path, on_damage=damage.append)
    assert damaged.tile(kernel, ISA) == tile
    assert len(damaged.choices()) == 2
    assert "line 3" in damage[0]
    assert "never finished" in damage[1]
    library.store_choices([choice(Gemm(32, 8, 72), tile)])
    assert len(KernelLibrary(tmp_path, on_damage=damage.append).choices()) == 3


def test_a_choice_that_no_template_offers_any_more_is_ignored(tmp_path):
    kernel = Gemm(30, 8, 72)
    rule, other = kernel.candidates(ISA)[:2]
    library = KernelLibrary(tmp_path)
    for stored, used in ((rule, None), (replace(rule, rows=31), None), (other, other)):
        library.store_choices([choice(kernel, stored)])
        assert library.tile(kernel, ISA) == used
    # Other threads and another instruction set choose for themselves.
    assert library.tile(kernel, ISA.with_threads(2)) is None
    library.store_choices([choice(GlobalPool(4, 8), other)])
    assert library.tile(GlobalPool(4, 8), ISA) is None


@pytest.mark.slow
def test_builds_use_the_chosen_tiles(tmp_path, cache, subnets, images):
    graph = fuse(trace(subnets["w8a8"], (1, *images.shape[1:])))
    kernels = {call.kernel for call in graph.calls}
    plain, tuned = KernelLibrary(cache / "kernels"), KernelLibrary(tmp_path / "tuned")
    others = {k: k.candidates(ISA)[1] for k in kernels if len(k.candidates(ISA)) > 1}
    assert len(others) >= 3
    tuned.store_choices(choice(kernel, tile) for kernel, tile in others.items())
    outputs = []
    for name, library in (("plain", plain), ("tuned", tuned)):
        build_library(graph, ISA, library, tmp_path / f"{name}.so")
        symbols = {record.symbol for record in kernel_records(graph, ISA, library)}
        data = (tmp_path / f"{name}.so").read_bytes()
        assert all(symbol.encode() in data for symbol in symbols)
        chosen = {kernel.symbol(ISA, tile) for kernel, tile in others.items()}
        assert chosen <= symbols if library is tuned else not chosen & symbols
        outputs.append(Model(tmp_path / f"{name}.so")(images))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_other_kinds_of_devices_say_that_they_do_not_time_kernels(device):
    with pytest.raises(DeviceError, match="'local_cpu' cannot time single kernels"):
        Device.time_kernel(device, [], None, 1.0)
