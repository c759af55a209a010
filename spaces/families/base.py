"""Family: the geometry behind a search space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from spaces.dimension import Choice, Dimension
from spaces.errors import ConfigError
from spaces.layer_spec import LayerSpec
from spaces.registry import Registry
from spaces.settings import explain

Values = Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a block in a network.

    A config's layers are the concatenation of its active slots' layers, so whatever is computed
    per layer can be remembered per slot: one slot sees only a few dimensions.

    Attributes:
        name: Unique in its family, for example `stage1.block0`.
        reads: The dimensions on which its layers depend. The form of the quantisation
            (`spaces.families.quantisation.FORM_READS`) may be named whole: of it, a space reads
            the dimensions that it has.
        layers: The layers for the values of those dimensions.
        depth: (dimension, least value) for which the slot is present; None: always present.
    """

    name: str
    reads: tuple[str, ...]
    layers: Callable[[Values], tuple[LayerSpec, ...]]
    depth: tuple[str, int] | None = None


class FamilySettings(BaseModel):
    """Base of a family's settings: validated, immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Family(ABC):
    """A parametrised kind of network: its dimensions and the layers that a choice gives.

    A `SearchSpace` reads `dimensions()` and `slots()` once when it is made; both must depend on
    the settings alone. `supernet.families` builds the modules of the same name. Third parties add
    a family by an entry point in the group `netcarve.families`.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[FamilySettings]]

    def __init__(self, settings: FamilySettings) -> None:
        self.settings = settings

    @abstractmethod
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions, in the order of the network."""

    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """All slots, in the order of execution."""

    @property
    @abstractmethod
    def input_channels(self) -> int:
        """Channels of the input image."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes, the length of the logits."""

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON."""
        return self.settings.model_dump(mode="json")


FAMILIES: Registry[type[Family]] = Registry("family", "netcarve.families")


def make_family(name: str, settings: Mapping[str, Any]) -> Family:
    """The registered family `name` with validated settings.

    Raises:
        UnknownNameError: No such family.
        ConfigError: An unknown or invalid setting.
    """
    family = FAMILIES.get(name)
    try:
        return family(family.settings_type.model_validate(settings))
    except ValidationError as error:
        raise ConfigError(
            f"settings of family {name!r}: {explain(error, family.settings_type)}"
        ) from None
