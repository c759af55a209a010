from __future__ import annotations

import pytest

from spaces import NetcarveError, get_space
from spaces.inline import InlineSpace, parse_inline_space


def test_an_inline_space_is_that_of_the_same_settings():
    named = get_space("mobilenetv3_digits")
    found = parse_inline_space({"family": "mobilenetv3", "settings": named.family.to_json()})
    assert found.space().key == named.key
    assert found.name == found.space().name == "mobilenetv3 (inline)"
    assert InlineSpace.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"family": "mobilnetv3", "settings": {}}, "unknown family .*Did you mean 'mobilenetv3'"),
        ({"family": "mobilenetv3", "setings": {}}, "unknown key 'setings'. Did you mean"),
        ({"family": "mobilenetv3"}, "settings: Field required"),
        (
            {"family": "mobilenetv3", "settings": {"input_chanels": 1}},
            "settings of family 'mobilenetv3': unknown key 'input_chanels'. Did you mean",
        ),
    ],
)
def test_mistakes_are_typed_errors(data, message):
    with pytest.raises(NetcarveError, match=message):
        parse_inline_space(data)
