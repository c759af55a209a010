"""Devices and their spaces in the store."""

from __future__ import annotations

import pytest

from search.errors import RecordConflictError
from search.store import Store
from spaces.errors import UnknownNameError


def test_devices_and_their_spaces(store: Store) -> None:
    devices = store.devices
    devices.record_devices({"cpu": ({"isa": "avx2"}, {"threads": 1})})
    devices.record_devices({"cpu": ({"isa": "avx2"}, {"threads": 2})})
    assert devices.device("cpu").capabilities == {"threads": 2}, "what a new probe found"
    with pytest.raises(RecordConflictError, match="another configuration"):
        devices.record_devices({"cpu": ({"isa": "avx512"}, {})})
    devices.record_devices({"cpu": ({"isa": "avx512"}, {"threads": 4})}, replace=True)
    assert devices.device("cpu").config == {"isa": "avx512"}
    assert devices.device("cpu").capabilities == {"threads": 4}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cpu'.*Known: cpu"):
        devices.device("cpuu")

    assert devices.record_space("cpu", "small", "base", {"d": [1]}, "base: base\n")
    assert not devices.record_space("cpu", "small", "base", {"d": [2]}, "base: base # 2\n")
    assert devices.space("cpu", "small").space == {"d": [2]}
    assert devices.space("cpu", "small").source == "base: base # 2\n"
    with pytest.raises(UnknownNameError, match="Known: small"):
        devices.space("cpu", "smal1")
    with pytest.raises(UnknownNameError, match="unknown device 'tpu'"):
        devices.record_space("tpu", "small", "base", {}, "")
    assert [(row.device, row.name) for row in devices.spaces()] == [("cpu", "small")]
    assert devices.spaces("tpu") == []
