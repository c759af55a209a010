from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import entry_points, version

import pytest
import typer.main

from cli.main import app

# Typer itself needs pydantic for anything but the first screen of help.
HEAVY = ("torch", "tvm", "ray", "optuna", "sqlalchemy", "alembic", "numpy", "onnx", "sklearn")
_HELP = """
import json, sys
from cli.main import main
sys.argv = ["netcarve", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code
finally:
    print(json.dumps(sorted(m for m in sys.modules if "." not in m)), file=sys.stderr)
"""
GROUPS = ["", *sorted(typer.main.get_command(app).commands)]


@pytest.mark.parametrize("group", GROUPS)
def test_help_imports_nothing_heavy(group):
    command = [sys.executable, "-c", _HELP, *group.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage: netcarve" in done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.alone
def test_help_answers_in_half_a_second():
    command = [sys.executable, "-c", _HELP]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    # The least of several: other processes of the machine can only add to it.
    assert min(seconds) < 0.5


def test_console_script_is_the_main_function():
    (script,) = entry_points(group="console_scripts", name="netcarve")
    assert script.value == "cli.main:main"


def test_version(netcarve):
    assert netcarve("--version").stdout == f"netcarve {version('netcarve')}\n"


def test_without_arguments_it_explains_itself(netcarve):
    assert "Usage: netcarve" in netcarve().output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "No such command 'serch'"),
        (["search", "run"], "Missing argument 'FILE'"),
        (["device", "add", "x", "--threads", "many"], "Invalid value for '--threads'"),
        (["bundle", "run", "."], "Missing option '--input'"),
    ],
)
def test_wrong_usage_ends_with_2(netcarve, arguments, message):
    done = netcarve(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
