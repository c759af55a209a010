from __future__ import annotations

from dataclasses import replace

import pytest

from compilers.devices import DeviceConfig, LocalCpu, parse_device
from compilers.errors import DeviceError
from compilers.targets import host_isas
from search.devices import (
    RegisteredDevice,
    add_device,
    device_space,
    find_devices,
    list_devices,
    probe_device,
    record_devices,
    register_space_file,
    register_space_text,
    show_device,
)
from search.errors import RecordConflictError, SearchError
from search.host_lock import HostLock
from search.store import Store
from spaces import (
    PRECISIONS,
    ConfigError,
    NetcarveError,
    SpaceError,
    UnknownNameError,
    get_space,
)

# A probe takes the host lock.
pytestmark = pytest.mark.usefixtures("runtime_dir")

BASE = "mobilenetv3_digits"
SLOWEST = host_isas()[-1]


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'test.db'}") as opened:
        yield opened


@pytest.fixture
def float_device(store):
    """A device whose probe found float32 only."""
    found = add_device(store, {"name": "edge"})
    capabilities = replace(found.capabilities, schemes=frozenset({"fp32"}))
    store.devices.record_devices({"edge": (found.config, capabilities.to_json())}, replace=True)
    return "edge"


def _bits(space):
    return {d.choices for d in space.dimensions if d.kind == "w_bits"}


def test_an_added_device_is_probed_and_found_again(store):
    added = add_device(store, {"name": "cpu", "isa": "native"})
    assert added == show_device(store, "cpu") == list_devices(store)[0]
    # `native` is what the user wrote; what it meant on this machine is what the probe found.
    assert added.config["isa"] == "native"
    assert added.capabilities.isa == host_isas()[0]


def test_a_probe_disturbs_no_measurement(store, monkeypatch):
    seen = []

    def probe(device, original=LocalCpu.probe):
        seen.extend((holder.mode, holder.purpose) for holder in HostLock().holders())
        return original(device)

    monkeypatch.setattr(LocalCpu, "probe", probe)
    add_device(store, {"name": "cpu"})
    find_devices(store, ["cpu", DeviceConfig(name="new")])
    assert seen == [("shared", f"probe of device {name}") for name in ("cpu", "new")]


def test_a_taken_name_is_refused_unless_replaced(store):
    add_device(store, {"name": "cpu"})
    with pytest.raises(RecordConflictError, match="another configuration"):
        add_device(store, {"name": "cpu", "isa": SLOWEST})
    assert show_device(store, "cpu").config["isa"] == "native"
    add_device(store, {"name": "cpu", "isa": SLOWEST}, replace=True)
    assert show_device(store, "cpu").capabilities.isa == SLOWEST


def test_adding_or_probing_again_renews_what_was_found(store, float_device):
    assert show_device(store, float_device).capabilities.schemes == {"fp32"}
    assert probe_device(store, float_device).capabilities.schemes == set(PRECISIONS)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "cpu", "isa": "sse"}, NetcarveError, "isa.*avx2"),
        ({"name": "cpu", "thread": 1}, DeviceError, "unknown key 'thread'. Did you mean 'threads'"),
        ({"name": "a b"}, DeviceError, "name: "),
        ({"name": "cpu", "kind": "gpu"}, UnknownNameError, "'gpu'.*Known: .*local_cpu"),
        ({"name": "cpu", "threads": 9999}, DeviceError, "threads"),
    ],
)
def test_a_bad_device_is_refused_and_not_stored(store, settings, error, message):
    with pytest.raises(error, match=message):
        add_device(store, settings)
    assert list_devices(store) == []


def test_devices_of_a_job_are_looked_up_or_probed_and_stored_when_asked(store):
    add_device(store, {"name": "known"})
    described = DeviceConfig(name="new", isa=SLOWEST)
    found = find_devices(store, ["known", described])
    assert [device.name for device in found] == ["known", "new"]
    assert [device.name for device in list_devices(store)] == ["known"]
    record_devices(store, [found[1]])
    assert find_devices(store, ["new"]) == [found[1]] == [show_device(store, "new")]


@pytest.mark.parametrize(
    ("devices", "error"),
    [
        ([DeviceConfig(name="new"), "nowhere"], UnknownNameError),
        ([DeviceConfig(name="new"), DeviceConfig(name="bad", threads=9999)], DeviceError),
    ],
)
def test_a_job_with_one_bad_device_adds_none(store, devices, error):
    with pytest.raises(error):
        find_devices(store, devices)
    assert list_devices(store) == []


def test_a_job_refuses_a_device_that_is_only_emulated(store):
    emulated = parse_device({"name": "arm", "kind": "emulated_aarch64", "runtime": "/tvm"})
    with pytest.raises(SearchError, match=r"arm is of kind 'emulated_aarch64'.*no latencies"):
        find_devices(store, [DeviceConfig(name="new"), emulated])
    capabilities = add_device(store, {"name": "cpu"}).capabilities
    record_devices(store, [RegisteredDevice("arm", emulated, capabilities)])
    with pytest.raises(SearchError, match="no latencies"):
        find_devices(store, ["cpu", "arm"])


@pytest.mark.parametrize("order", [1, -1])
def test_a_job_with_a_taken_name_stores_and_renews_none(store, float_device, order):
    described = [DeviceConfig(name="new"), DeviceConfig(name=float_device, threads=2)]
    known = show_device(store, float_device)
    renewed = replace(known, capabilities=replace(known.capabilities, schemes=frozenset({"w8a8"})))
    add_device(store, {"name": "taken"})
    taken = replace(show_device(store, "taken"), settings=DeviceConfig(name="taken", isa=SLOWEST))
    new = replace(known, name="new", settings=described[0])
    with pytest.raises(RecordConflictError, match="'taken' exists with another configuration"):
        record_devices(store, [new, renewed, taken][::order])
    assert [device.name for device in list_devices(store)] == [float_device, "taken"]
    assert show_device(store, float_device) == known
    record_devices(store, [new, renewed, taken], replace=True)
    assert list_devices(store) == [renewed, new, taken]


def test_a_registered_space_restricts_the_base_on_that_device_only(store):
    for name in ("small", "other"):
        add_device(store, {"name": name})
    text = f"base: {BASE}\nschemes: [w8a8]\nchoices: {{'*.kernel': [3]}}"
    registered = register_space_text(store, text, "small")
    assert show_device(store, "small").spaces == (registered.name,) == (f"{BASE}@small",)
    base = get_space(BASE)
    assert device_space(store, show_device(store, "small"), base).key == registered.space.key
    assert device_space(store, show_device(store, "other"), base).key == base.key


def test_a_device_space_is_the_intersection_with_what_the_job_wants(store):
    add_device(store, {"name": "cpu"})
    register_space_text(store, f"base: {BASE}\nchoices: {{resolution: [20, 24]}}", "cpu")
    job = get_space(BASE).restrict(choices={"resolution": (24, 32)})
    found = device_space(store, show_device(store, "cpu"), job)
    assert found.dimensions[found.position("resolution")].choices == (24,)
    narrow = get_space(BASE).restrict(choices={"resolution": (32,)})
    with pytest.raises(SpaceError, match=r"nothing is left of resolution.*\(32,\).*\(20, 24\)"):
        device_space(store, show_device(store, "cpu"), narrow)


def test_without_registration_the_probe_decides(store, float_device):
    assert _bits(device_space(store, show_device(store, float_device), get_space(BASE))) == {(32,)}


def test_one_space_per_device_and_base(store):
    add_device(store, {"name": "cpu"})
    register_space_text(store, f"base: {BASE}\nname: a", "cpu")
    with pytest.raises(SpaceError, match="already has the space 'a'"):
        register_space_text(store, f"base: {BASE}\nname: b", "cpu")
    text = f"base: {BASE}\nname: a\nchoices: {{resolution: [20]}}"
    register_space_text(store, text, "cpu")
    assert show_device(store, "cpu").spaces == ("a",)
    found = device_space(store, show_device(store, "cpu"), get_space(BASE))
    assert found.dimensions[found.position("resolution")].choices == (20,)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (f"base: {BASE}\nschemes: [w8a8]", SpaceError, "does not execute w8a8"),
        ("base: resnet", UnknownNameError, f"'resnet'.*Known: .*{BASE}"),
        (f"base: {BASE}\nchoice: {{}}", ConfigError, "Did you mean 'choices'"),
    ],
)
def test_a_bad_registration_leaves_nothing(store, float_device, text, error, message):
    with pytest.raises(error, match=message):
        register_space_text(store, text, float_device)
    assert store.devices.spaces() == []


def test_registration_files_that_cannot_be_read(store, tmp_path):
    add_device(store, {"name": "cpu"})
    with pytest.raises(SearchError, match="cannot read space registration"):
        register_space_file(store, tmp_path / "none.yaml", "cpu")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SearchError, match="cannot read space registration"):
        register_space_file(store, binary, "cpu")


def test_parsed_settings_are_complete():
    assert parse_device({"name": "cpu"}) == DeviceConfig(name="cpu")
