"""Is this machine ready? One check for each thing that a search needs, and what to do about it.

Only the standard library is imported at the top of the modules here: a broken installation must be
able to say so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from search.doctor import installation, machine, places
from search.doctor.check import Check, Status, reinstall

if TYPE_CHECKING:
    from search.workspace import Places

__all__ = ["Check", "Status", "examine"]


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
        ("python", installation.check_python),
        ("packages", installation.check_packages),
        ("tvm", installation.check_engine),
        ("linker", installation.check_linker),
        ("cpu", machine.check_cpu),
        ("gpu", machine.check_gpu),
        ("cores", machine.check_cores),
        ("memory", machine.check_memory),
        ("shared memory", machine.check_shared_memory),
        ("home", placed(places.check_home)),
        ("disk", placed(places.check_disk)),
        ("database", placed(places.check_database)),
        ("artifacts", placed(places.check_artifacts)),
        ("runtime folder", places.check_runtime_folder),
    ]
    return [_guarded(name, check) for name, check in named]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check, or a problem when it cannot be made at all."""
    try:
        return check()
    except ImportError as error:
        return Check(name, Status.PROBLEM, f"cannot be checked: {error}", reinstall())
    except Exception as error:
        # Told apart by name, since importing the class may be what fails.
        if "NetcarveError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        return Check(name, Status.PROBLEM, str(error), "Mend what the message names.")
