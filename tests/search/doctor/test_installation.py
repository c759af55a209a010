from __future__ import annotations

from search.doctor import Status, installation

_engine = installation.check_engine


def test_an_engine_that_does_not_load_says_why(monkeypatch):
    monkeypatch.setattr(installation, "_ENGINE_TEST", "raise OSError('libtvm.so: cannot open')")
    found = _engine()
    assert found.status is Status.PROBLEM
    assert "libtvm.so: cannot open" in found.found


def test_a_wrong_and_a_missing_package_are_named_with_what_is_needed(monkeypatch):
    real = installation.metadata.version

    def version(name):
        if name == "optuna":
            raise installation.metadata.PackageNotFoundError(name)
        return "0.1.15.post2" if name == "apache-tvm-ffi" else real(name)

    monkeypatch.setattr(installation.metadata, "version", version)
    found = installation.check_packages()
    assert found.status is Status.PROBLEM
    assert "apache-tvm-ffi is 0.1.15.post2, needed ==0.1.14.post1" in found.found
    assert "optuna is missing" in found.found
    assert "'apache-tvm-ffi==0.1.14.post1'" in found.advice


def test_the_installed_packages_are_as_required():
    found = installation.check_packages()
    assert found.status is Status.OK
    assert "apache-tvm-ffi 0.1.14.post1" in found.found


def test_a_distribution_that_is_not_installed():
    found = installation.check_packages("no-such-distribution")
    assert found.status is Status.PROBLEM
    assert "pip install" in found.advice


def test_no_linker(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = installation.check_linker()
    assert found.status is Status.PROBLEM
    assert "apt-get install binutils" in found.advice
