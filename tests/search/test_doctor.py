from __future__ import annotations

import os
import shutil
import sqlite3
from collections import namedtuple

import pytest

from search import doctor
from search.doctor import GIB, Status, examine
from search.store import Store
from search.workspace import find_places

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch, tmp_path):
    """TVM loads in a child for seconds; the command's test waits for it once, these need not."""
    ok = doctor.Check("tvm", Status.OK, "")
    monkeypatch.setattr(doctor, "check_engine", lambda: ok)
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / "runtime"))
    for name in ("NETCARVE_DB", "NETCARVE_ARTIFACTS", "NETCARVE_HOME"):
        monkeypatch.delenv(name, raising=False)


_engine = doctor.check_engine


def _named(checks, name):
    return next(check for check in checks if check.name == name)


def test_a_ready_machine_has_no_problem_and_nothing_is_created(tmp_path):
    checks = examine(tmp_path / "home")
    assert [c for c in checks if c.status is Status.PROBLEM] == []
    assert all(c.advice for c in checks if c.status is not Status.OK)
    assert not (tmp_path / "home").exists()


def test_gpus_are_named_and_none_is_no_fault(monkeypatch):
    from compilers import cuda_driver
    from compilers.errors import DeviceError

    gpus = (cuda_driver.Gpu("Paper GPU", (8, 6)),)
    monkeypatch.setattr(cuda_driver, "find_gpus", lambda: gpus)
    assert doctor.check_gpu() == doctor.Check("gpu", Status.OK, "Paper GPU (sm_86)")

    def none():
        raise DeviceError("no NVIDIA driver is installed here")

    monkeypatch.setattr(cuda_driver, "find_gpus", none)
    found = doctor.check_gpu()
    assert found.status is Status.OK
    assert "no devices of kind cuda: no NVIDIA driver" in found.found


def test_an_engine_that_does_not_load_says_why(monkeypatch):
    monkeypatch.setattr(doctor, "_ENGINE_TEST", "raise OSError('libtvm.so: cannot open')")
    found = _engine()
    assert found.status is Status.PROBLEM
    assert "libtvm.so: cannot open" in found.found


def test_a_wrong_and_a_missing_package_are_named_with_what_is_needed(monkeypatch):
    real = doctor.metadata.version

    def version(name):
        if name == "optuna":
            raise doctor.metadata.PackageNotFoundError(name)
        return "0.1.15.post2" if name == "apache-tvm-ffi" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = doctor.check_packages()
    assert found.status is Status.PROBLEM
    assert "apache-tvm-ffi is 0.1.15.post2, needed ==0.1.14.post1" in found.found
    assert "optuna is missing" in found.found
    assert "'apache-tvm-ffi==0.1.14.post1'" in found.advice


def test_the_installed_packages_are_as_required():
    found = doctor.check_packages()
    assert found.status is Status.OK
    assert "apache-tvm-ffi 0.1.14.post1" in found.found


def test_a_distribution_that_is_not_installed():
    found = doctor.check_packages("no-such-distribution")
    assert found.status is Status.PROBLEM
    assert "pip install" in found.advice


def test_no_linker(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = doctor.check_linker()
    assert found.status is Status.PROBLEM
    assert "apt-get install binutils" in found.advice


@pytest.mark.parametrize(
    ("flags", "status"),
    [({"sse2"}, Status.PROBLEM), (None, Status.WARNING)],
)
def test_cpus_without_vnni_and_without_avx2(monkeypatch, flags, status):
    from compilers import targets

    have = frozenset(flags) if flags else targets.ISAS["avx2"].cpu_flags
    monkeypatch.setattr(targets, "host_cpu_flags", lambda: have)
    found = doctor.check_cpu()
    assert found.status is status
    assert "avx2" in found.found
    assert found.advice


@pytest.mark.parametrize(
    ("free", "status"),
    [(GIB, Status.PROBLEM), (3 * GIB, Status.WARNING), (9 * GIB, Status.OK)],
)
def test_memory(monkeypatch, free, status):
    monkeypatch.setattr(doctor, "free_memory", lambda: free)
    assert doctor.check_memory().status is status


def test_a_container_limits_memory_and_cores(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable: 8388608 kB",
        "/sys/fs/cgroup/memory.max": str(2 * GIB),
        "/sys/fs/cgroup/memory.current": str(GIB),
        "/sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {GIB // 4}",
        "/sys/fs/cgroup/cpu.max": "50000 100000",
    }
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    assert doctor.free_memory() == GIB + GIB // 4
    assert doctor.usable_cores() == 0.5
    assert doctor.check_cores().status is Status.WARNING
    files["/sys/fs/cgroup/memory.max"] = "max"
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert doctor.free_memory() == 8 * GIB
    assert doctor.usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("free", "status"),
    [(GIB // 2, Status.PROBLEM), (2 * GIB, Status.WARNING), (50 * GIB, Status.OK)],
)
def test_disk_is_that_of_the_home_to_be(monkeypatch, tmp_path, free, status):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda p: asked.append(p) or Usage(0, 0, free))
    found = doctor.check_disk(find_places(tmp_path / "not" / "yet"))
    assert (found.status, asked) == (status, [tmp_path])


def test_a_database_of_a_newer_netcarve_is_a_problem_and_stays_as_it_is(tmp_path):
    file = tmp_path / "new.db"
    Store(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE netcarve_alembic_version SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    found = _named(examine(tmp_path, f"sqlite:///{file}"), "database")
    assert found.status is Status.PROBLEM
    assert "'9999'" in found.found
    assert file.read_bytes() == before


def test_a_database_that_a_killed_process_left_is_not_touched(tmp_path):
    (tmp_path / "left").mkdir()
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        store.devices.record_devices({"cpu": ({}, {})})
        for file in tmp_path.glob("jobs.db*"):
            shutil.copy(file, tmp_path / "left")

    def content():
        # Not its third file, the index of the log, which every reader may write.
        return [(tmp_path / "left" / name).read_bytes() for name in ("jobs.db", "jobs.db-wal")]

    before = content()
    assert before[1]
    found = doctor.check_database(find_places(tmp_path, f"sqlite:///{tmp_path}/left/jobs.db"))
    assert (found.status, "revision 0" in found.found) == (Status.OK, True)
    assert content() == before


def test_databases_present_absent_and_corrupt(tmp_path):
    file = tmp_path / "jobs.db"
    url = f"sqlite:///{file}"
    assert "will be created" in doctor.check_database(find_places(tmp_path, url)).found
    assert not file.exists()
    Store(url).close()
    assert "revision 0" in doctor.check_database(find_places(tmp_path, url)).found
    file.write_bytes(b"this is no database" * 100)
    found = _named(examine(tmp_path, url), "database")
    assert (found.status, "not a database" in found.found) == (Status.PROBLEM, True)


def test_a_database_url_that_is_none(tmp_path):
    found = _named(examine(tmp_path, "mysql://somewhere"), "database")
    assert found.status is Status.PROBLEM
    assert "Allowed: sqlite:///FILE" in found.found


def test_artifacts_in_a_folder_in_memory_and_nowhere(tmp_path):
    folder = doctor.check_artifacts(find_places(tmp_path, artifacts=str(tmp_path / "a")))
    assert folder.status is Status.OK
    assert not (tmp_path / "a").exists()
    memory = doctor.check_artifacts(find_places(tmp_path, artifacts="memory://doctor"))
    assert memory.status is Status.OK
    nowhere = _named(examine(tmp_path, artifacts="nosuch://bucket"), "artifacts")
    assert nowhere.status is Status.PROBLEM
    assert "nosuch" in nowhere.found


def test_a_home_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    found = doctor.check_home(find_places(tmp_path / "file" / "home"))
    assert found.status is Status.PROBLEM
    assert "--home" in found.advice


def test_a_broken_installation_is_a_problem_not_a_crash(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "compilers.build", None)
    found = _named(examine(tmp_path), "linker")
    assert found.status is Status.PROBLEM
    assert "cannot be checked" in found.found
