"""Compilers and linkers: of this machine, or Debian's cross tools for another architecture."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence

from compilers.errors import BuildError
from compilers.targets import Architecture


def is_foreign(architecture: Architecture) -> bool:
    """Whether this machine is of another architecture."""
    return platform.machine() != architecture


def tool_name(architecture: Architecture, tool: str) -> str:
    """What a tool that makes code for an architecture is called here: `g++`, `aarch64-...-g++`."""
    return f"{architecture}-linux-gnu-{tool}" if is_foreign(architecture) else tool


def find_tool(architecture: Architecture, what: str, tools: Sequence[str]) -> tuple[str, str]:
    """The first of `tools` that is installed for an architecture: (its plain name, its path).

    Args:
        architecture: Of the code that it makes.
        what: What the tools are, for the message.
        tools: Plain names, the preferred first.

    Raises:
        BuildError: None is; the message names them.
    """
    for tool in tools:
        if path := shutil.which(tool_name(architecture, tool)):
            return tool, path
    names = ", ".join(tool_name(architecture, tool) for tool in tools)
    packages = f"g++-{architecture}-linux-gnu" if is_foreign(architecture) else "g++"
    raise BuildError(
        f"no {what} for {architecture} found; install one of: {names} "
        f"(for example: apt-get install {packages})"
    )
