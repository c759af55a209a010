"""Runs what may crash: code that was just compiled, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[2]


def run_checks(script: str, *arguments: str) -> Any:
    """What a script of this folder prints in its last line, which is JSON.

    Args:
        script: Its file name.
        arguments: What follows on its command line.
    """
    done = subprocess.run(
        [sys.executable, str(_HERE / script), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "OMP_NUM_THREADS": "1",
            "TVM_NUM_THREADS": "2",
        },
        timeout=800,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])
