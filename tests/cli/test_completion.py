from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli.main import app
from search.workspace import open_store
from spaces import SPACES


@pytest.fixture
def complete(home):
    """What bash is offered after `words`."""

    def call(*words):
        environment = {
            "_NETCARVE_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["netcarve", *words]),
            "COMP_CWORD": str(len(words)),
        }
        done = CliRunner().invoke(app, env=environment, prog_name="netcarve")
        assert done.stderr == ""
        return done.stdout.split()

    return call


def test_names_of_jobs_devices_and_spaces(netcarve, complete, home, tmp_path):
    for name in ("cpu", "cpu-slow", "edge"):
        netcarve("device", "add", name)
    (tmp_path / "s.yaml").write_text("base: mobilenetv3_digits\nname: mine")
    netcarve("space", "register", tmp_path / "s.yaml", "--device", "edge")
    with open_store(home) as store:
        job, _ = store.jobs.record_job("digits", {}, "key", 0)
    assert complete("device", "show", "cp") == ["cpu", "cpu-slow"]
    assert complete("search", "show", "dig") == [job.id]
    assert complete("space", "show", "mi") == ["mine"]
    assert complete("space", "register", "s.yaml", "--device", "e") == ["edge"]


def test_keys_of_supernets_and_their_jobs(complete, home):
    with open_store(home) as store:
        store.results.record_supernet("ab12", "sha256:0", {})
        job, _ = store.jobs.record_job("digits", {}, "key", 0)
    assert complete("supernet", "eval", "a") == ["ab12"]
    assert complete("supernet", "show", "dig") == [job.id]


def test_options_that_came_before_count(netcarve, complete, tmp_path):
    other = tmp_path / "other"
    netcarve("device", "add", "there", "--home", other)
    assert complete("device", "show", "the") == []
    assert complete("device", "show", "--home", str(other), "the") == ["there"]
    assert complete("device", "show", "--db", f"sqlite:///{other}/netcarve.db", "") == ["there"]


def test_completing_creates_nothing(complete, home):
    assert complete("search", "resume", "") == []
    assert complete("space", "show", "") == SPACES.names()
    assert not home.exists()


def test_commands_are_completed(complete):
    assert {"run", "resume"} <= set(complete("search", "r"))
