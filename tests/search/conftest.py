"""Fixtures shared by the tests of `search`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.delivery import Delivery, run
from search.execution import ExecutionConfig, Executor
from search.job import parse_job
from search.objectives import Objective, Problem
from search.progress import silent
from search.store import Store
from search.workspace import Workspace, open_workspace
from spaces import SearchSpace, get_space
from supernet import DataConfig
from supernet.data import Digits, Labelled


@pytest.fixture(scope="session")
def tiny_job() -> dict[str, Any]:
    """The content of a job file that is as small as a real one can be."""
    data: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("tiny_job.yaml").read_text())
    return data


@pytest.fixture(scope="session")
def small_space() -> dict[str, Any]:
    """An inline space whose supernet is trained in a second."""
    stage = {"width": [8, 16], "depth": [1, 2], "expansion": [2, 3], "kernel": [3]}
    settings = {
        "input_channels": 1,
        "classes": 10,
        "resolution": [8],
        "stem": [8],
        "stages": [stage | {"stride": 2}],
        "head": [16],
        "schemes": ["fp32", "w8a8"],
    }
    return {"family": "mobilenetv3", "settings": settings}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, executor: Executor) -> Iterator[Workspace]:
    """A home in which tiny jobs run, on the one Ray: each would start and end its own."""
    del executor
    with open_workspace(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def data_reads() -> list[str]:
    """What the process of `delivered` has asked its data set for."""
    return []


@pytest.fixture(scope="session")
def delivered(workspace: Workspace, tiny_job: dict[str, Any], data_reads: list[str]) -> Delivery:
    """The tiny job, run once with everything real."""

    class Noted(Digits):
        def load(self) -> Labelled:
            data_reads.append("load")
            return super().load()

        def digest(self) -> str:
            data_reads.append("digest")
            return super().digest()

    settings = parse_job(tiny_job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataConfig, "dataset", lambda config: Noted(config.path, config.settings))
        return run(settings, workspace.store, workspace.artifacts, workspace.home, None, silent)


@pytest.fixture(scope="session")
def executor(runtime_dir: Path) -> Iterator[Executor]:
    """The one local Ray of the test session, with two CPUs."""
    with Executor(ExecutionConfig(num_cpus=2)) as executor:
        executor.start()
        yield executor
    assert not list(runtime_dir.glob("ray-*")), "Ray's folder outlives a clean end"


def _postgresql_tools() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    on_path = shutil.which("initdb")
    if folders:
        return folders[-1]
    return Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of a PostgreSQL server on loopback, started for this session."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    tools = _postgresql_tools()
    if tools is None:
        pytest.skip("PostgreSQL's initdb is not installed (Debian: postgresql)")
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="ncpg", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(tool: str, *arguments: str) -> None:
        command = [str(tools / tool), "-D", str(folder / "data"), *arguments]
        # Output to a file: the server inherits it, and a pipe would never end.
        with (folder / "log").open("ab") as log:
            subprocess.run(
                command, check=True, user=user, cwd=folder, stdout=log, stderr=log, timeout=60
            )

    run("initdb", "-U", "netcarve", "--auth=trust", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-w", "-o", options, "start")
    try:
        yield f"postgresql://netcarve@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_database(postgresql_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    import psycopg

    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgresql_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: a SQLite file, then PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    url: str = request.getfixturevalue("postgresql_database")
    return url


@pytest.fixture
def store(empty_database: str) -> Iterator[Store]:
    """An open store, empty: a SQLite file, then PostgreSQL."""
    with Store(empty_database) as store:
        yield store


@pytest.fixture
def job(store: Store) -> str:
    """The id of a queued job of `store`, on its one device `cpu`."""
    store.devices.record_devices({"cpu": ({"isa": "avx2"}, {"schemes": ["fp32", "w8a8"]})})
    return store.jobs.record_job("Digits demo!", {"epochs": 3}, "space0", 7)[0].id


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """The space of the example job."""
    return get_space("mobilenetv3_digits")


@pytest.fixture
def problem() -> Problem:
    """Accuracy against latency."""
    return Problem(
        (
            Objective.model_validate({"name": "accuracy", "unit": "%"}),
            Objective.model_validate({"name": "latency", "unit": "ms"}),
        )
    )
