"""Imports go down only: of the folders, each may import those of lower floors and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "cli": 5,
    "search": 4,
    "predictors": 3,
    "compilers": 3,
    "supernet": 2,
    "spaces": 1,
}
# Alembic runs these; no folder imports them, so they have no floor.
OUTSIDE = "migrations"
# `netcarve --help` answers at once because these are imported by the command that needs them.
HEAVY = {"torch", "tvm", "ray", "optuna"}


def imports(nodes):
    """(module, line) of every import among the nodes of a syntax tree."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            yield node.module, node.lineno


def at_import_time(tree):
    """(module, line) of every import that runs when the module is imported."""
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for node in ast.walk(outer)
    }
    return imports(node for node in ast.walk(tree) if id(node) not in lazy)


def modules(folder):
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}


def wrong(folder, tree):
    """`line: module` of every import that goes up or sideways."""
    return [
        f"{line}: {module}"
        for module, line in imports(ast.walk(tree))  # in functions and under TYPE_CHECKING too
        if (other := module.partition(".")[0]) != folder
        and (FLOORS.get(other, 0) >= FLOORS[folder] or other in {OUTSIDE, "tests", "benchmarks"})
    ]


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_go_down(folder):
    found = modules(folder)
    assert found
    assert not {
        f"{path.relative_to(ROOT)}:{place}"
        for path, tree in found.items()
        for place in wrong(folder, tree)
    }


def test_every_package_has_a_floor():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == {*FLOORS, OUTSIDE}


def _reached(module, seen):
    """`module` and every own module that importing it runs."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if module in seen or not file.is_file():
        return
    seen[module] = file
    parent = module.rpartition(".")[0]
    for name in [parent, *(name for name, _ in at_import_time(ast.parse(file.read_text())))]:
        if name.partition(".")[0] in FLOORS:
            _reached(name, seen)


def test_the_command_line_imports_nothing_heavy():
    seen = {}
    for path in modules("cli"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        _reached(name.removesuffix(".__init__"), seen)
    heavy = {
        f"{file.relative_to(ROOT)}:{line}: {module}"
        for file in seen.values()
        for module, line in at_import_time(ast.parse(file.read_text()))
        if module.partition(".")[0] in HEAVY
    }
    assert len(seen) >= len(modules("cli"))
    assert not heavy


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("spaces", "def f():\n    import torch, supernet.trainer\n"),
        ("predictors", "if TYPE_CHECKING:\n    from compilers.built import Build\n"),
        ("compilers", "class A:\n    from search import store\n"),
        ("search", "import cli\n"),
        ("supernet", "from migrations.env import x\n"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(folder, text):
    assert len(wrong(folder, ast.parse(text))) == 1
    assert not wrong("cli", ast.parse("import json, search.store\nfrom cli import main\n"))


def test_a_heavy_import_is_found_unless_a_function_or_the_type_checker_needs_it():
    text = "class A:\n    def f():\n        import torch\nif TYPE_CHECKING:\n    import ray\n"
    assert not list(at_import_time(ast.parse(text)))
    text = "try:\n    import torch\nexcept ImportError:\n    from optuna.study import Study\n"
    assert {name for name, _ in at_import_time(ast.parse(text))} == {"torch", "optuna.study"}
