from __future__ import annotations

import pytest
from pydantic import ValidationError

from supernet.config import SupernetConfig


def test_unknown_keys_and_impossible_values_are_refused():
    for bad in ({"epoch": 3}, {"epochs": 0}, {"learning_rate": -1}, {"label_smoothing": 1.0}):
        with pytest.raises(ValidationError):
            SupernetConfig.model_validate(bad)


def test_key_names_what_decides_the_weights():
    base = SupernetConfig()
    assert base.key("s", {}) == SupernetConfig(checkpoint_every=7).key("s", {})
    others = [
        SupernetConfig(seed=1).key("s", {}),
        SupernetConfig(epochs=99).key("s", {}),
        base.key("t", {}),
        base.key("s", {"seed": 1}),
    ]
    assert len({base.key("s", {}), *others}) == 5
