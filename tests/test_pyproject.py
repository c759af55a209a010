"""What the packages import is what an installation brings."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = ("spaces", "supernet", "predictors", "compilers", "search", "cli", "migrations")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(texts):
    return {canonical(Requirement(text).name) for text in texts}


def imported(folders):
    """Import name of every package from elsewhere -> a file that imports it."""
    found = {}
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                is_absolute = isinstance(node, ast.ImportFrom) and not node.level
                names = [node.module] if is_absolute else []
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    here = {*folders, *(p.stem for folder in folders for p in (ROOT / folder).rglob("*.py"))}
    return {k: v for k, v in found.items() if k not in {*sys.stdlib_module_names, *OWN, *here}}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(OWN, ("huggingface",)), (("tests", "benchmarks"), ("dev", "postgresql", "benchmarks"))],
)
def test_every_import_is_declared(folders, extras):
    allowed = declared([*PROJECT["dependencies"], *(r for extra in extras for r in EXTRAS[extra])])
    distributions = packages_distributions()
    missing = {
        name: path
        for name, path in imported(folders).items()
        if not allowed & {canonical(found) for found in distributions.get(name, [name])}
    }
    assert not missing


def test_what_is_optional_is_imported_by_the_function_that_needs_it():
    optional = declared(EXTRAS["huggingface"])
    for path in (file for folder in OWN for file in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = {alias.name for alias in getattr(node, "names", [])}
            assert not optional & names, path
            assert getattr(node, "module", None) not in optional, path


def test_every_requirement_is_pinned():
    pins = declared((ROOT / "constraints.txt").read_text().split())
    wanted = [*PROJECT["dependencies"], *(text for texts in EXTRAS.values() for text in texts)]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert declared([*wanted, *build]) <= pins
