"""Appends are whole or absent, whoever else appends, dies or finds the disk full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compilers.errors import KernelLibraryError
from compilers.record_file import append_lines, read_lines

ROOT = Path(__file__).parents[2]
FULL = """
import resource, sys
from pathlib import Path
from compilers.errors import KernelLibraryError
from compilers.record_file import append_lines
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    append_lines(Path(sys.argv[1]), [b"%d" % i * 50 + b"\\n" for i in range(100)])
except KernelLibraryError as error:
    print(error)
"""
MANY = """
import sys
from pathlib import Path
from compilers.record_file import append_lines
for i in range(200):
    append_lines(Path(sys.argv[1]), [sys.argv[2].encode() * 3000 + b"\\n"] * 2)
"""


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_line_that_was_never_finished_is_told_apart_and_removed_by_the_next_append(tmp_path):
    path = tmp_path / "folder" / "records.jsonl"
    assert read_lines(path) == ([], b"")
    append_lines(path, [b"one\n", b"two\n"])
    with path.open("ab") as file:
        file.write(b"x" * 10_000)
    assert read_lines(path) == ([(1, b"one"), (2, b"two")], b"x" * 10_000)
    append_lines(path, [b"three\n"])
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    path.write_bytes(b"torn")
    append_lines(path, [b"one\n"])
    assert path.read_bytes() == b"one\n"


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, [b"kept\n"])
    out, _ = child(FULL, path).communicate(timeout=60)
    assert "cannot be written" in out
    assert "NETCARVE_CACHE" in out
    assert path.read_bytes() == b"kept\n"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelLibraryError, match="cannot be written"):
        append_lines(tmp_path / "file" / "records.jsonl", [b"one\n"])


def test_appends_of_two_processes_do_not_mix(tmp_path):
    path = tmp_path / "records.jsonl"
    for process in [child(MANY, path, letter) for letter in "ab"]:
        assert process.wait(timeout=60) == 0
    lines, rest = read_lines(path)
    assert rest == b""
    assert {line for _, line in lines} == {b"a" * 3000, b"b" * 3000}
    assert len(lines) == 800
    # The two lines of one append stay together.
    assert all(
        first == second for (_, first), (_, second) in zip(lines[::2], lines[1::2], strict=True)
    )
