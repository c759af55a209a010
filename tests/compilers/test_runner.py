"""The native runner: its results, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.compilers.native_runner import call, change_manifest, npy

# Everything here needs compiled subnets.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "inputs",
    [
        lambda images: images,
        lambda images: images[:1],
        lambda images: images[3],
        lambda images: np.zeros_like(images[:2]),
        lambda images: (images - 0.5) * 200,
    ],
    ids=["batch", "one", "without its first axis", "zeros", "beyond the calibrated range"],
)
def test_outputs_are_those_of_the_python_runner(
    executable, builds, device, images, tmp_path, inputs
):
    x = np.ascontiguousarray(inputs(images))
    expected = device.run(builds["mixed"], x.reshape(-1, *images.shape[1:]))
    np.save(tmp_path / "x.npy", x)
    done = call(executable, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = np.load(tmp_path / "y.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "y.npy"}
    printed = call(executable, "--input", tmp_path / "x.npy").stdout.splitlines()
    assert printed == [
        f"input {i}: class {row.argmax()}, logit {row.max():.4f}" for i, row in enumerate(expected)
    ]


@pytest.fixture
def token_folder(token_build, tmp_path):
    """What the runner reads of a bundle whose inputs are tokens."""
    build, _ = token_build
    folder = tmp_path / "tokens"
    folder.mkdir()
    shutil.copy(build.library, folder)
    manifest = {
        "format": 2, "library": "library.so", "input_shape": [1, 4], "input_dtype": "int64",
        "output_shape": [1, 4, 16], "isa": build.isa, "threads": 1,
        "cpu_flags": list(build.cpu_flags),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_tokens_give_the_results_of_the_python_runner(
    executable, token_build, token_folder, device, tmp_path
):
    tokens = np.array([[3, 1, 19, 0], [7, 7, 2, 18]])
    np.save(tmp_path / "x.npy", tokens)
    given = ["--bundle", token_folder, "--input", tmp_path / "x.npy"]
    done = call(executable, *given, "--output", tmp_path / "y.npy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(found, device.run(token_build[0], tokens))
    assert found.shape == (2, 4, 16)
    assert call(executable, *given).stdout.splitlines() == [
        f"input {i}, token {j}: class {row.argmax()}, logit {row.max():.4f}"
        for i, rows in enumerate(found)
        for j, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 4), np.float32), "dtype is '<f4'; expected '<i8', int64"),
        (np.zeros((2, 4), np.int32), "dtype is '<i4'; expected '<i8', int64"),
        (np.zeros((2, 5), np.int64), r"int64 \(2, 5\); expected int64 \[n, 4\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_token_is_refused(executable, token_folder, tmp_path, content, message):
    np.save(tmp_path / "x.npy", content)
    done = call(executable, "--bundle", token_folder, "--input", tmp_path / "x.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr)


def test_a_result_of_another_shape_is_refused(executable, token_folder, tmp_path):
    change_manifest(token_folder, lambda m: m.update(output_shape=[1, 4, 17]))
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.int64))
    done = call(executable, "--bundle", token_folder, "--input", tmp_path / "x.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "returns no float32 values of shape (1, 4, 17)" in done.stderr


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(executable, mixed_bundle, tmp_path, version):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, np.load(mixed_bundle / "input.npy"), version=version)
    done = call(executable, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(mixed_bundle / "output.npy"))


def test_the_measured_latency_is_printed(executable, mixed_bundle, tmp_path):
    given = ["--input", mixed_bundle / "input.npy", "--output", tmp_path / "y.npy"]
    done = call(executable, *given, "--repeats", 50, "--threads", 2)
    assert (done.returncode, done.stderr) == (0, "")
    figures = re.fullmatch(
        r"measured latency: median ([\d.]+) ms, p10 to p90: ([\d.]+) to ([\d.]+) ms, "
        r"repeats: 50, threads: 2\n",
        done.stdout,
    )
    median, p10, p90 = map(float, figures.groups())
    assert 0 < p10 <= median <= p90
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(mixed_bundle / "output.npy"))


X = np.ones((2, 1, 12, 12), np.float32)
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 12, 12), }"
EXPECTED = r"expected float32 \[n, 1, 12, 12\]"


def with_header(text, data=b""):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(X[:, :, 1:]), rf"\(2, 1, 11, 12\); {EXPECTED}"),
        (npy(X[..., None]), rf"\(2, 1, 12, 12, 1\); {EXPECTED}"),
        (npy(X[0, 0]), rf"\(12, 12\); {EXPECTED}"),
        (npy(X.reshape(-1)), rf"\(288,\); {EXPECTED}"),
        (npy(X[0, 0, 0, 0]), rf"\(\); {EXPECTED}"),
        (npy(X[:0]), rf"\(0, 1, 12, 12\); {EXPECTED}"),
        (npy(X.astype(np.float64)), "dtype is '<f8'; expected '<f4', float32"),
        (npy(X.astype(np.uint8)), r"dtype is '\|u1'"),
        (npy(X.astype(">f4")), "dtype is '>f4'"),
        (npy(X.astype([("a", "<f4")])), "dtype is structured"),
        (npy(np.asfortranarray(np.ones((2, 1, 12, 12), np.float32))), "Fortran order"),
        (npy(X)[:-4], "1148 bytes of data; its shape .* needs 1152"),
        (npy(X) + b"more", "1156 bytes of data"),
        (npy(X)[:40], "header is cut off"),
        (b"", "does not begin as one"),
        (b"text, and no array", "does not begin as one"),
        (b"\x93NUMPY\x09\x00" + npy(X)[8:], "version is 9"),
        (with_header(HEADER[:-1]), "malformed at character"),
        (with_header(HEADER + "}"), "malformed at character"),
        (with_header(HEADER.replace("12)", "-12)")), "malformed at character"),
        (with_header(HEADER.replace("12)", "99999999999999999999)")), "malformed at character"),
        (with_header(HEADER.replace("False", "None")), "malformed at character"),
        (with_header("{'descr': '<f4', 'shape': (1, 1, 12, 12)}"), "lacks"),
        (with_header(HEADER.replace("descr", "other")), "unknown key 'other'"),
        (with_header(HEADER.replace("1, 1", "9223372036854775807, 9")), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_that_are_refused(executable, tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    done = call(executable, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(rf"error: {re.escape(str(tmp_path))}/x\.npy: .*{message}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "y.npy").exists()


def test_inputs_that_cannot_be_read(executable, tmp_path):
    for path in (tmp_path / "none.npy", tmp_path):
        done = call(executable, "--input", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {path}: not a readable .npy file: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--input is missing"),
        (["--input", "x.npy", "more"], "unexpected argument more"),
        (["--input", "x.npy", "--repeats", "0"], "--repeats is '0'; allowed: 1 to"),
        (["--input", "x.npy", "--threads", "2x"], "--threads is '2x'; allowed: 1 to"),
        (["--input", "x.npy", "--threads", "99999999999"], "--threads is"),
        (["--input", "x.npy", "--colour"], "unrecognized option"),
        (["--input"], "requires an argument"),
    ],
)
def test_arguments_that_are_refused(executable, arguments, message):
    done = call(executable, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_an_output_that_cannot_be_written_leaves_nothing(executable, mixed_bundle, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "y.npy", tmp_path / "folder", Path("/dev/full")):
        done = call(executable, "--input", mixed_bundle / "input.npy", "--output", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {path}: cannot be written: ")
    assert Path("/dev/full").is_char_device()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: change_manifest(f, lambda m: m.update(cpu_flags=["avx9000"])),
         "this CPU lacks avx9000; the bundle was compiled for avx"),
        (lambda f: change_manifest(f, lambda m: m.update(format=99)), "format 2"),
        (lambda f: change_manifest(f, lambda m: m.pop("input_shape")), "input_shape is missing"),
        (lambda f: change_manifest(f, lambda m: m.update(input_shape=[1, "1", 12, 12])),
         "input_shape is of the wrong type"),
        (lambda f: change_manifest(f, lambda m: m.update(input_shape=[1, 0, 12, 12])),
         r"input_shape is not \[1, C, H, W\]"),
        (lambda f: change_manifest(f, lambda m: m.update(input_dtype="int8")),
         "input_dtype is 'int8'; known: float32, int64"),
        (lambda f: change_manifest(f, lambda m: m.update(output_shape=[10])),
         r"output_shape is not \[1, C\] or \[1, T, C\]"),
        (lambda f: change_manifest(f, lambda m: m.update(library="../library.so")),
         "library is '../library.so'; expected a file name"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: corrupt: "),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest is of the wrong type"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json: no manifest"),
        (lambda f: (f / "library.so").write_bytes(b"\x7fELF nonsense"),
         "library.so: no library of a compiled subnet: "),
        (lambda f: (f / "library.so").unlink(), "library.so: no library of a compiled subnet: "),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_a_clear_error(executable, mixed_bundle, tmp_path, damage, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("library.so", "manifest.json"):
        shutil.copy(mixed_bundle / name, folder)
    damage(folder)
    done = call(executable, "--bundle", folder, "--input", mixed_bundle / "input.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(rf"error: .*{message}", done.stderr)
    assert done.stderr.count("\n") == 1


def test_a_shape_that_is_not_the_library_s(executable, mixed_bundle, tmp_path):
    folder = Path(shutil.copytree(executable.parent, tmp_path / "folder"))
    change_manifest(folder, lambda m: m.update(input_shape=[1, 1, 13, 13]))
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 13, 13), np.float32))
    done = call(folder / "net", "--input", tmp_path / "x.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the library refuses inputs of shape (1, 1, 13, 13)" in done.stderr
