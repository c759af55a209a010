"""Options of a training of ten steps with both phases."""

from __future__ import annotations

from supernet.config import SupernetConfig

SHORT = SupernetConfig(
    warmup_epochs=1, epochs=1, batch_size=32, random_configs=1, checkpoint_every=3
)
