"""Is this machine ready? One check for each thing that a search needs, and what to do about it.

Only the standard library is imported at the top: a broken installation must be able to say so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.workspace import Places

GIB = 2**30
MIB = 2**20
LEAST_PYTHON = (3, 11)
_DISTRIBUTION = "netcarve"
_ENGINE_TIMEOUT_S = 120
# Prints nothing unless TVM loads and has a code generator for CPUs.
_ENGINE_TEST = "import tvm; assert tvm.get_global_func('target.build.llvm', True), 'no LLVM'"


class Status(StrEnum):
    """How a check ended. Only a problem keeps a search from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: How it is.
        found: What was found.
        advice: What to do about it; empty when all is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "advice": self.advice,
        }


def examine(
    home: Path | None = None, database: str | None = None, artifacts: str | None = None
) -> list[Check]:
    """Every check. Nothing is created but the private runtime folder; a database is not changed.

    Args:
        home: Home folder; the defaults are those of `search.workspace.find_places`.
        database: Database URL.
        artifacts: Artifacts URL.
    """

    def placed(check: Callable[[Places], Check]) -> Callable[[], Check]:
        def run() -> Check:
            from search.workspace import find_places

            return check(find_places(home, database, artifacts))

        return run

    named: list[tuple[str, Callable[[], Check]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("tvm", check_engine),
        ("linker", check_linker),
        ("cpu", check_cpu),
        ("gpu", check_gpu),
        ("cores", check_cores),
        ("memory", check_memory),
        ("shared memory", check_shared_memory),
        ("home", placed(check_home)),
        ("disk", placed(check_disk)),
        ("database", placed(check_database)),
        ("artifacts", placed(check_artifacts)),
        ("runtime folder", check_runtime_folder),
    ]
    return [_guarded(name, check) for name, check in named]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check, or a problem when it cannot be made at all."""
    try:
        return check()
    except ImportError as error:
        return Check(name, Status.PROBLEM, f"cannot be checked: {error}", _reinstall())
    except Exception as error:
        # Told apart by name, since importing the class may be what fails.
        if "NetcarveError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        return Check(name, Status.PROBLEM, str(error), "Mend what the message names.")


def _reinstall() -> str:
    return "Install again: pip install -c constraints.txt -e ."


# -- installation -------------------------------------------------------------------------------


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
        return Check("packages", Status.PROBLEM, f"{distribution} is not installed", _reinstall())
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
        return Check("tvm", Status.PROBLEM, f"does not load: {last}", _reinstall())
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


# -- machine ------------------------------------------------------------------------------------


def check_cpu() -> Check:
    """Instruction sets that both this processor and the kernels know."""
    from compilers.targets import ISAS, host_cpu_flags, host_isas

    name, isas = _cpu_name(), host_isas()
    if not isas:
        missing = sorted(ISAS["avx2"].cpu_flags - host_cpu_flags())
        return Check(
            "cpu",
            Status.PROBLEM,
            f"{name} executes none of {', '.join(ISAS)}; for avx2 it lacks {', '.join(missing)}",
            "Use an x86-64 processor with AVX2, on Linux.",
        )
    found = f"{name}: {', '.join(isas)}"
    if ISAS[isas[0]].int8_dot == "widen":
        advice = "8-bit layers run, but gain less than with avx512_vnni."
        return Check("cpu", Status.WARNING, found, advice)
    return Check("cpu", Status.OK, found)


def check_gpu() -> Check:
    """The NVIDIA GPUs. Only devices of kind `cuda` need one: it is no fault to have none."""
    from compilers.cuda_driver import find_gpus
    from compilers.errors import DeviceError

    try:
        found = ", ".join(f"{gpu.name} ({gpu.isa})" for gpu in find_gpus())
    except DeviceError as error:
        found = f"none, so no devices of kind cuda: {error}"
    return Check("gpu", Status.OK, found)


def check_cores() -> Check:
    """Cores that this process may use."""
    cores = usable_cores()
    if cores < 2:
        return Check(
            "cores",
            Status.WARNING,
            f"{cores:g}",
            "Measurements share the core with everything else: expect noise and a slow search.",
        )
    return Check("cores", Status.OK, f"{cores:g}")


def check_memory() -> Check:
    """Memory that is free for a search: training, a compiler child and Ray at once."""
    free = free_memory()
    if free is None:
        return Check("memory", Status.WARNING, "unknown", "Make sure that 4 GiB are free.")
    found = f"{free / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Check("memory", Status.PROBLEM, found, "Free some: at least 2 GiB, better 4 GiB.")
    if free < 4 * GIB:
        return Check("memory", Status.WARNING, found, "4 GiB are better.")
    return Check("memory", Status.OK, found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:  # noqa: S108 - Ray's place
    """Room for Ray's object store."""
    if not folder.is_dir():
        return Check("shared memory", Status.WARNING, f"no {folder}", "Ray uses the disk instead.")
    free = shutil.disk_usage(folder).free
    found = f"{free / MIB:.0f} MiB free in {folder}"
    if free < 128 * MIB:
        advice = "Ray uses the disk instead; in a container give it --shm-size=256m."
        return Check("shared memory", Status.WARNING, found, advice)
    return Check("shared memory", Status.OK, found)


def usable_cores() -> float:
    """Cores by affinity and by the container's quota, whichever is less."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def free_memory() -> int | None:
    """Bytes that may still be used, by the machine and by the container; None when unknown."""
    available = None
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if available is not None and limit.isdigit() and used.isdigit():
        # Page cache counts as used there and is given back when it is needed.
        statistics = _read("/sys/fs/cgroup/memory.stat").splitlines()
        cache = sum(int(x.split()[1]) for x in statistics if x.startswith("inactive_file "))
        available = min(available, int(limit) - int(used) + cache)
    return available


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


# -- places -------------------------------------------------------------------------------------


def check_home(places: Places) -> Check:
    """The home folder, or the place where it will be."""
    return _writable("home", places.home, "Name another folder with --home or NETCARVE_HOME.")


def check_disk(places: Places) -> Check:
    """Free disk where the home folder lies."""
    folder = _existing(places.home)
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < GIB:
        return Check("disk", Status.PROBLEM, found, "Free at least 1 GiB, or use another --home.")
    if free < 5 * GIB:
        return Check("disk", Status.WARNING, found, "5 GiB are better.")
    return Check("disk", Status.OK, found)


def check_database(places: Places) -> Check:
    """The database: reachable, and of a revision that this netcarve can use; it is not changed."""
    from sqlalchemy.exc import DBAPIError

    from search import store_engine, store_schema
    from search.errors import StoreError

    url, file = places.database_url, places.database_file
    if file is not None and not file.exists():
        advice = "Name another database with --db or NETCARVE_DB."
        found = _writable("database", file.absolute().parent, advice)
        if found.status is not Status.OK:
            return found
        return Check("database", Status.OK, f"{file} will be created")
    engine = store_engine.read_only_engine(url)
    try:
        with engine.connect() as connection:
            outdated = store_schema.needs_upgrade(connection)
            revision = store_schema.current_revision(connection)
    except DBAPIError as error:
        raise StoreError(str(store_engine.store_error(url, error))) from error
    finally:
        engine.dispose()
    found_text = f"{store_engine.describe(url)}, revision {revision or 'none'}"
    if outdated:
        found_text += f", becomes {store_schema.revisions()[-1]} when it is first used"
    return Check("database", Status.OK, found_text)


def check_artifacts(places: Places) -> Check:
    """The artifacts' folder or URL: a small file is written there and removed again."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    from search.artifacts import ArtifactStore

    advice = "Name another place with --artifacts or NETCARVE_ARTIFACTS."
    ArtifactStore(places.artifacts)
    filesystem, root = fsspec.core.url_to_fs(places.artifacts)
    if isinstance(filesystem, LocalFileSystem):
        return _writable("artifacts", Path(root), advice)
    test = f"{root.rstrip('/')}/.netcarve-doctor"
    try:
        filesystem.makedirs(root, exist_ok=True)
        filesystem.pipe_file(test, b"netcarve")
        filesystem.rm_file(test)
    except OSError as error:
        return Check("artifacts", Status.PROBLEM, f"{places.artifacts}: {error}", advice)
    return Check("artifacts", Status.OK, f"{places.artifacts} is writable")


def check_runtime_folder() -> Check:
    """The private folder for locks and Ray's sockets."""
    from search.home import runtime_folder

    advice = "Set NETCARVE_RUNTIME_DIR to a folder of your own."
    return _writable("runtime folder", runtime_folder(), advice)


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _writable(name: str, path: Path, advice: str) -> Check:
    folder = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(name, Status.PROBLEM, f"{folder} is not writable: {error.strerror}", advice)
    return Check(name, Status.OK, str(path) if folder == path else f"{path} will be created")
