"""Per-device registration: a YAML file that names a base space and what a device may use of it.

base: mobilenetv3_digits
name: digits-small          # optional, default: BASE@DEVICE
schemes: [fp32, w8a8]       # optional, default: every scheme that the device executes
choices:                    # optional: dimension or pattern -> values to keep
  resolution: [24, 32]
  stage*.kernel: [3]

`schemes` and `choices` both apply.
"""

from __future__ import annotations

import fnmatch
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spaces.capabilities import DeviceCapabilities
from spaces.dimension import Choice
from spaces.errors import ConfigError, SpaceError
from spaces.presets import get_space
from spaces.quant_scheme import bits_of
from spaces.settings import explain
from spaces.space import SearchSpace

_BITS = "*.w_bits"


class SpaceRegistration(BaseModel):
    """What a registration file may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    name: str | None = None
    schemes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    choices: dict[str, Annotated[tuple[Choice, ...], Field(min_length=1)]] = {}


def parse_registration(text: str) -> SpaceRegistration:
    """The registration in a YAML text.

    Raises:
        ConfigError: Not YAML, an unknown key, or a value of the wrong type.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"space registration is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError("space registration must be a mapping with the key 'base'")
    try:
        return SpaceRegistration.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"space registration: {explain(error, SpaceRegistration)}") from None


def register_space(
    registration: SpaceRegistration, device: str, capabilities: DeviceCapabilities
) -> SearchSpace:
    """The sub-space that `registration` gives to a device.

    Raises:
        UnknownNameError: Unknown base space, dimension or scheme.
        SpaceError: The registration asks for a scheme or value that the device does not execute,
            or leaves a dimension without a choice.
    """
    space = get_space(registration.base)
    wanted = space.restrict(choices=registration.choices)
    named = set(registration.choices)
    if registration.schemes is not None:
        bits = tuple(sorted(bits_of(scheme) for scheme in registration.schemes))
        extra = sorted(set(registration.schemes) - capabilities.schemes)
        if extra:
            raise SpaceError(
                f"device {device!r} does not execute {', '.join(extra)}; "
                f"it executes: {', '.join(sorted(capabilities.schemes))}"
            )
        wanted = _intersection(wanted, space.restrict(choices={_BITS: bits}))
        named.add(_BITS)
    # What nobody named follows the device; what was named must execute there.
    for name, values in wanted.unsupported(capabilities).items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in named):
            raise SpaceError(
                f"the space is larger than device {device!r} allows: {name} = {values} does not "
                f"execute there; it executes: {', '.join(sorted(capabilities.schemes))}"
            )
    title = registration.name or f"{registration.base}@{device}"
    restricted = wanted.restrict(capabilities)
    return SearchSpace(title, restricted.family, {d.name: d.choices for d in restricted.dimensions})


def _intersection(wanted: SearchSpace, schemed: SearchSpace) -> SearchSpace:
    """What both sub-spaces of one space allow."""
    kept: dict[str, tuple[Choice, ...]] = {}
    for one, other in zip(wanted.dimensions, schemed.dimensions, strict=True):
        kept[one.name] = tuple(choice for choice in one.choices if choice in other.choices)
        if not kept[one.name]:
            raise SpaceError(
                f"nothing is left of {one.name}: 'choices' allows {one.choices}, "
                f"'schemes' allows {other.choices}"
            )
    return SearchSpace(wanted.name, wanted.family, kept)
