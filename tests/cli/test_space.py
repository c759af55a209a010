from __future__ import annotations

import json
from dataclasses import replace

import pytest

from search.devices import show_device
from search.workspace import open_store
from spaces import SPACES

BASE = "mobilenetv3_digits"


@pytest.fixture
def float_device(netcarve, home):
    """A registered device that executes float32 only."""
    netcarve("device", "add", "edge")
    with open_store(home) as store:
        found = show_device(store, "edge")
        capabilities = replace(found.capabilities, schemes=frozenset({"fp32"}))
        store.devices.record_devices({"edge": (found.config, capabilities.to_json())}, replace=True)
    return "edge"


@pytest.fixture
def register(netcarve, tmp_path):
    def call(text, device):
        file = tmp_path / "space.yaml"
        file.write_text(text)
        return netcarve("space", "register", file, "--device", device, "--json")

    return call


def test_register_list_show(netcarve, register, float_device):
    text = f"base: {BASE}\nname: tiny\nchoices: {{resolution: [20]}}"
    assert json.loads(register(text, float_device).stdout)["name"] == "tiny"
    listed = {one["name"]: one for one in json.loads(netcarve("space", "list", "--json").stdout)}
    assert listed["tiny"]["device"] == float_device
    assert listed["tiny"]["log10_size"] < listed[BASE]["log10_size"]
    shown = json.loads(netcarve("space", "show", "tiny", "--json").stdout)
    assert shown["choices"]["resolution"] == [20]
    assert shown["choices"]["head.w_bits"] == [32]
    assert "resolution" in netcarve("space", "show", BASE).stdout
    assert "tiny" in netcarve("device", "show", float_device).stdout


@pytest.mark.parametrize(
    ("text", "device", "message"),
    [
        (f"base: {BASE}\nschemes: [w8a8]", "edge", "does not execute w8a8; it executes: fp32"),
        (
            f"base: {BASE}\nchoices: {{head.w_bits: [8, 32]}}",
            "edge",
            "the space is larger than device 'edge' allows: head.w_bits",
        ),
        (f"base: {BASE}\nschemes: [w3a3]", "edge", "unknown quantisation scheme 'w3a3'"),
        ("base: mobilenet", "edge", "unknown space 'mobilenet'"),
        (f"base: {BASE}", "egde", "unknown device 'egde'. Did you mean 'edge'?"),
        (f"base: {BASE}\nscheme: [fp32]", "edge", "unknown key 'scheme'. Did you mean 'schemes'?"),
        (f"base: {BASE}\nchoices: {{depth: [1]}}", "edge", "unknown dimension 'depth'"),
        ("base: [", "edge", "not valid YAML"),
    ],
)
def test_bad_registrations_end_with_2_and_leave_nothing(
    netcarve, register, float_device, text, device, message
):
    done = register(text, device)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    listed = json.loads(netcarve("space", "list", "--json").stdout)
    assert [one["name"] for one in listed] == SPACES.names()


def test_unknown_space(netcarve):
    done = netcarve("space", "show", "mobilenetv3_digit")
    assert done.exit_code == 2
    assert f"Did you mean '{BASE}'?" in done.stderr
