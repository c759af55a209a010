"""Modules that become another part of their store several times in every training step."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class SwitchedModule(nn.Module):
    """Base of elastic modules.

    nn.Module looks for parameters, buffers and modules in whatever is assigned to it, which took
    most of the time of activating a config.

    Attributes:
        SWITCHES: Attributes that are assigned in every step; never parameters or modules.
    """

    SWITCHES: ClassVar[frozenset[str]] = frozenset(
        {"spec", "active", "present", "squeezes", "prefix"}
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.SWITCHES:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
