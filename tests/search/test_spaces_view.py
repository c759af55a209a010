from __future__ import annotations

import pytest

from search.devices import add_device, register_space_text
from search.errors import SearchError
from search.spaces_view import list_spaces, show_space
from search.store import Store
from spaces import SPACES, UnknownNameError, get_space
from spaces.inline import parse_inline_space

BASE = "mobilenetv3_digits"


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'test.db'}") as opened:
        for name in ("one", "two"):
            add_device(opened, {"name": name})
        text = f"base: {BASE}\nname: {{}}\nchoices: {{{{resolution: [{{}}]}}}}"
        register_space_text(opened, text.format("both", 20), "one")
        register_space_text(opened, text.format("both", 24), "two")
        yield opened


def test_shipped_spaces_come_first(store):
    found = [(one.name, one.device) for one in list_spaces(store)]
    shipped = [(name, None) for name in SPACES.names()]
    assert (BASE, None) in shipped
    assert found == [*shipped, ("both", "one"), ("both", "two")]


def test_a_name_on_several_devices_needs_the_device(store):
    with pytest.raises(SearchError, match="say which: one, two"):
        show_space(store, "both")
    found = show_space(store, "both", "two").space
    assert found.dimensions[found.position("resolution")].choices == (24,)


def test_unknown_names_list_the_known(store):
    with pytest.raises(UnknownNameError, match=r"Known: both, .*mobilenetv3_digits"):
        show_space(store, "resnet")
    with pytest.raises(UnknownNameError, match=r"'three'.*Known: one, two"):
        show_space(store, "both", "three")
    with pytest.raises(UnknownNameError, match="space of device one"):
        show_space(store, "resnet", "one")


def test_json_has_the_choices_when_asked_for(store):
    shipped = show_space(store, BASE)
    assert "choices" not in shipped.to_json()
    data = shipped.to_json(choices=True)
    assert data["choices"]["resolution"] == [20, 24, 28, 32]
    assert data["key"] == get_space(BASE).key


def test_what_is_shown_makes_an_inline_space(store):
    shown = show_space(store, BASE).to_json(choices=True)
    inline = parse_inline_space({"family": shown["family"], "settings": shown["settings"]})
    assert inline.space().key == shown["key"]
