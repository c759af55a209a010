"""docs/families.md has every setting of the families with its default; its example is a space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from spaces import DeviceCapabilities
from spaces.families import FAMILIES, QuantSettings
from spaces.families.base import FamilySettings
from spaces.families.quantisation import FORM_READS
from spaces.inline import parse_inline_space
from spaces.layer_spec import Operator
from spaces.quant_scheme import PRECISIONS

PAGE = (Path(__file__).parents[3] / "docs" / "families.md").read_text()


def section(name):
    return re.search(rf"^### {name}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def shown(default):
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    return "none" if default is None else str(default).lower()


def described(model, without=()):
    """Setting -> its default as the page shows it, "" where it must be given."""
    fields = {name: f for name, f in model.model_fields.items() if name not in without}
    return {n: "" if f.is_required() else shown(f.default) for n, f in fields.items()}


def parts(annotation):
    """The settings of parts, such as stages, that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, FamilySettings):
        yield annotation
    for argument in get_args(annotation):
        yield from parts(argument)


def tables(text):
    """Of every table: setting -> default."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        yield dict(re.findall(r"^\| `(\w+)` \|(?: `?([^|`]+?)`?)? \|", table, re.MULTILINE))


@pytest.mark.parametrize("name", ["mobilenetv3", "elasticvit", "resnet"])
def test_settings_of_a_family_and_of_its_stages_are_documented_with_their_defaults(name):
    settings = FAMILIES.get(name).settings_type
    found = list(tables(section(name)))
    assert found[0] == described(settings, without=QuantSettings.model_fields)
    for field, info in settings.model_fields.items():
        for part in parts(info.annotation):
            if field == "stem":
                assert all(f"`{key}`" in section(name) for key in part.model_fields)
            else:
                assert described(part) in found[1:]


def test_settings_of_the_quantisation_are_documented_and_their_example_is_a_space():
    text = section("quantisation")
    assert list(tables(text)) == [described(QuantSettings)]
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    given = yaml.safe_load(example)["space"]
    assert {*QuantSettings.model_fields} - {*given["settings"]} == {"schemes"}
    space = parse_inline_space(given).space()
    assert {*FORM_READS} <= {*space.names}
    assert any(name.endswith(".a_bits") for name in space.names)
    executed = {name for name, found in PRECISIONS.items() if not found.weight_only}
    device = DeviceCapabilities("avx2", 1, 1, frozenset(Operator), frozenset(executed))
    kept = {d.name: d.choices for d in space.restrict(device).dimensions}
    assert kept["stage1.block0.conv1.w_bits"] == (2, 3, 4, 8, 32)
    assert kept["stage1.block0.conv1.a_bits"] == (8,)
    assert [kept[name] for name in FORM_READS] == [
        ("per_channel",),
        ("symmetric",),
        ("asymmetric",),
    ]
