from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def _commands(command, path=("netcarve",)):
    """Every command that does something by itself, and the root, by its words."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


def _sections():
    """Words of a heading such as `## netcarve device add NAME` -> the section's text."""
    parts = re.split(r"^## (netcarve.*)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _options(parameter):
    return {*parameter.opts, *parameter.secondary_opts}


ROOT = typer.main.get_command(app)
COMMANDS = [
    (path, command)
    for path, command in _commands(ROOT)
    if len(path) == 1 or not getattr(command, "commands", None)
]


def _heading(path, command):
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    return " ".join([*path, *arguments])


def test_every_command_has_a_section_and_every_section_a_command():
    assert {_heading(path, command) for path, command in COMMANDS} == set(_sections())


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(p) for p, _ in COMMANDS])
def test_a_section_names_exactly_the_options_of_its_command(path, command):
    options = [p for p in command.params if p.param_type_name == "option"]
    known = set().union(*map(_options, options), {"--help", "-h"})
    text = _sections()[_heading(path, command)]
    named = set(re.findall(r"`(--?[a-z][a-z-]*)", text))
    required = known - {"--help", "-h"}
    assert required <= named, f"not documented: {required - named}"
    assert named <= known, f"documented, but no option: {named - known}"


def test_environment_variables_are_documented():
    text = PAGE.read_text()
    for _, command in COMMANDS:
        for parameter in command.params:
            if parameter.envvar:
                assert f"`{parameter.envvar}`" in text
