from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from spaces.errors import ConfigError


def _raise(error):
    def call(*_arguments, **_options):
        raise error

    return call


def test_a_mistake_is_one_line_on_stderr_and_2(netcarve, monkeypatch):
    monkeypatch.setattr("search.devices.list_devices", _raise(ConfigError("bits: 5; allowed: 8")))
    done = netcarve("device", "list")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: bits: 5; allowed: 8\n"


def test_a_bug_keeps_its_traceback(netcarve, monkeypatch):
    monkeypatch.setattr("search.devices.list_devices", _raise(KeyError("bug")))
    done = netcarve("device", "list")
    assert done.exit_code == 1
    assert isinstance(done.exception, KeyError)


def test_a_full_disk_is_no_bug_but_a_missing_file_is(netcarve, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    monkeypatch.setattr("search.devices.list_devices", _raise(full))
    done = netcarve("device", "list")
    assert (done.exit_code, done.stderr) == (2, "error: No space left on device: /data/x\n")
    missing = FileNotFoundError(errno.ENOENT, "No such file", "/data/x")
    monkeypatch.setattr("search.devices.list_devices", _raise(missing))
    assert isinstance(netcarve("device", "list").exception, FileNotFoundError)


@pytest.mark.parametrize(
    "command",
    [["search", "run", "job.yaml"], ["search", "resume", "j"], ["search", "export", "j"]],
)
def test_an_interrupt_says_how_to_continue(netcarve, monkeypatch, home, command):
    monkeypatch.setattr("search.job.load_job", _raise(KeyboardInterrupt()))
    monkeypatch.setattr("search.workspace.open_workspace", _raise(KeyboardInterrupt()))
    done = netcarve(*command, "--home", f"{home}/with space")
    assert (done.exit_code, done.stdout) == (130, "")
    assert f"to continue: netcarve {' '.join(command)} --home '{home}/with space'" in done.stderr


def test_an_interrupted_measurement_of_a_pool_goes_on(netcarve, monkeypatch):
    monkeypatch.setattr("search.workspace.open_store", _raise(KeyboardInterrupt()))
    done = netcarve("device", "pool", "build", "--space", "s")
    assert done.stderr.endswith("to continue: netcarve device pool build --space s\n")


def test_what_is_not_continued_is_not_said_to_be(netcarve, monkeypatch):
    monkeypatch.setattr("search.devices.list_devices", _raise(KeyboardInterrupt()))
    done = netcarve("device", "list")
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "\nInterrupted.\n")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:s3cret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:s3c/r@et@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://host/db?password=s3cret&a=1", "postgresql://host/db?password=***&a=1"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
    ],
)
def test_an_interrupt_shows_no_password(netcarve, monkeypatch, url, shown):
    monkeypatch.setattr("search.workspace.open_workspace", _raise(KeyboardInterrupt()))
    for options, wanted in ((["--db", url], ["--db", shown]), ([f"--db={url}"], [f"--db={shown}"])):
        done = netcarve("search", "resume", "j", *options)
        assert done.stderr.endswith(
            f"{shlex.join(['netcarve', 'search', 'resume', 'j', *wanted])}\n"
        )


@pytest.mark.parametrize("stage", ["import", "work"])
def test_control_c_of_the_real_process(home, tmp_path, stage):
    ready = tmp_path / "ready"
    wait = f"import pathlib, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    if stage == "import":
        setup = "class Slow:\n def find_spec(self, n, *_):\n  if n == 'search.devices':\n   "
        setup += f"{wait}\nsys.meta_path.insert(0, Slow())\n"
    else:
        setup = "import search.devices\ndef slow(store):\n "
        setup += f"{wait}\nsearch.devices.list_devices = slow\n"
    code = f"import sys\n{setup}from cli.main import main\nmain()\n"
    command = [sys.executable, "-c", code, "device", "list"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted." in errors
    assert "Traceback" not in errors
