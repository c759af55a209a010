"""Checks of the installation: Python, packages, TVM and a linker."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib import metadata

from search.doctor.check import Check, Status, reinstall

LEAST_PYTHON = (3, 11)
_DISTRIBUTION = "netcarve"
_ENGINE_TIMEOUT_S = 120
# Prints nothing unless TVM loads and has a code generator for CPUs.
_ENGINE_TEST = "import tvm; assert tvm.get_global_func('target.build.llvm', True), 'no LLVM'"


def check_python() -> Check:
    """The version of the interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < LEAST_PYTHON:
        wanted = ".".join(map(str, LEAST_PYTHON))
        return Check("python", Status.PROBLEM, found, f"Use Python {wanted} or newer.")
    return Check("python", Status.OK, found)


def check_packages(distribution: str = _DISTRIBUTION) -> Check:
    """Every requirement of the installed distribution, the pinned engines among them."""
    from packaging.requirements import Requirement

    try:
        listed = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        return Check("packages", Status.PROBLEM, f"{distribution} is not installed", reinstall())
    needed = [r for r in listed if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong, pinned = [], []
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, "is missing"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append((requirement, f"is {version}"))
        elif "==" in str(requirement.specifier):
            pinned.append(f"{requirement.name} {version}")
    if wrong:
        found = "; ".join(f"{r.name} {how}, needed {r.specifier}" for r, how in wrong)
        wanted = " ".join(f"'{r.name}{r.specifier}'" for r, _ in wrong)
        return Check("packages", Status.PROBLEM, found, f"pip install {wanted}")
    return Check("packages", Status.OK, f"{len(needed)} as required; {', '.join(pinned)}")


def check_engine() -> Check:
    """Whether TVM loads and can generate code, in a child process that may crash."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ENGINE_TEST],
            capture_output=True,
            text=True,
            timeout=_ENGINE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(
            "tvm",
            Status.PROBLEM,
            f"does not load within {_ENGINE_TIMEOUT_S} s",
            "Try again when the machine is idle.",
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Check("tvm", Status.PROBLEM, f"does not load: {last}", reinstall())
    return Check("tvm", Status.OK, "loads, and generates code for CPUs")


def check_linker() -> Check:
    """A program that links compiled kernels into a library."""
    from compilers.build import LINKERS

    found = next((path for name in LINKERS if (path := shutil.which(name))), None)
    if found is None:
        return Check(
            "linker",
            Status.PROBLEM,
            f"none of {', '.join(LINKERS)} is on PATH",
            "Install one, for example: apt-get install binutils",
        )
    return Check("linker", Status.OK, found)
