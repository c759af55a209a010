"""Calls of the native runner, and changes to what it reads."""

from __future__ import annotations

import io
import json
import subprocess

import numpy as np


def call(executable, *arguments, **environment):
    """Run in an environment that names no paths at all."""
    return subprocess.run(
        [executable, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip


def change_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def npy(x):
    """Content of a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(x))
    return buffer.getvalue()
