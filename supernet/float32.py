"""A config's architecture in float32, whether or not its space has float32 to choose."""

from __future__ import annotations

from dataclasses import replace

from spaces.config import Config
from spaces.quant_scheme import FP32
from supernet.supernet import Supernet


def activate_float32(supernet: Supernet, config: Config) -> None:
    """Activate `config` with every quantiser off; the next `activate` turns them on again."""
    supernet.activate(config)
    specs = config.space.layer_specs(config)
    supernet.activate_specs({s.site: replace(s, precision=FP32) for s in specs})
