from __future__ import annotations

from pathlib import Path

from compilers.caches import TYPICAL, Cache, data_caches


def describe(folder: Path, index: int, level: str, kind: str, size: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir()
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (entry / name).write_text(text + "\n")


def test_caches_that_hold_data_come_smallest_first(tmp_path):
    describe(tmp_path, 3, "3", "Unified", "30M")
    describe(tmp_path, 0, "1", "Data", "48K")
    describe(tmp_path, 1, "1", "Instruction", "64K")
    describe(tmp_path, 2, "2", "Unified", "2048K")
    assert data_caches(tmp_path) == (Cache(1, 49152), Cache(2, 2 << 20), Cache(3, 30 << 20))


def test_what_linux_does_not_tell_is_assumed(tmp_path):
    assert data_caches(tmp_path) == TYPICAL
    describe(tmp_path, 0, "1", "Data", "unknown")
    (tmp_path / "index1").mkdir()
    assert data_caches(tmp_path) == TYPICAL


def test_this_machine_has_caches():
    sizes = [cache.bytes for cache in data_caches()]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 8 << 10
