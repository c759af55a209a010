"""docs/job.md names every key of the job file and of the registration file, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compilers.devices import DEVICES, DeviceConfig
from search.job import ExportSettings, JobSettings, Resources, SearchSettings
from search.objectives import METRICS, Constraint, Objective
from spaces.inline import InlineSpace
from spaces.registration import SpaceRegistration
from supernet import Augmentation, DataConfig, FinetuneConfig, SupernetConfig
from supernet.data import DATASETS, DatasetSettings
from supernet.objectives import OBJECTIVES, ObjectiveConfig
from supernet.regularisers import REGULARIZERS, RegularizerConfig
from supernet.samplers import BIT_SAMPLERS, SAMPLERS, BitsConfig, SamplerConfig
from supernet.samplers.complexity import LevelsConfig
from supernet.updates import UPDATES, UpdateConfig

PAGE = (Path(__file__).parents[2] / "docs" / "job.md").read_text()
SECTIONS = {
    "Job": (JobSettings,),
    "inline space": (InlineSpace,),
    "data": (DataConfig,),
    "supernet": (SupernetConfig,),
    "augmentation": (Augmentation,),
    "finetune": (FinetuneConfig,),
    "devices": (DeviceConfig,),
    "objectives and constraints": (Objective, Constraint),
    "search": (SearchSettings,),
    "resources": (Resources,),
    "export": (ExportSettings,),
    "The space registration file": (SpaceRegistration,),
}


def _section(name):
    return re.search(rf"^#+ {re.escape(name)}$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize(("section", "models"), SECTIONS.items(), ids=list(SECTIONS))
def test_every_key_is_documented_and_nothing_else(section, models):
    documented = set(re.findall(r"^\| `(\w+)` \|", _section(section), re.MULTILINE))
    assert documented == {name for model in models for name in model.model_fields}


@pytest.mark.parametrize(("section", "models"), SECTIONS.items(), ids=list(SECTIONS))
def test_documented_defaults_are_the_real_ones(section, models):
    for name, shown in re.findall(
        r"^\| `(\w+)` \| `?([\w.]+)`? \|", _section(section), re.MULTILINE
    ):
        field = models[0].model_fields[name]
        if not field.is_required() and shown not in ("all", "none", "BASE"):
            default = str(field.default).lower()
            assert float(default) == float(shown) if shown[0].isdigit() else default == shown


SEAMS = [
    (f"{kind} {name}", registry.get(name).settings_type, bases)
    for kind, registry, bases in (
        ("sampler", SAMPLERS, (SamplerConfig, LevelsConfig)),
        ("bit sampler", BIT_SAMPLERS, (BitsConfig,)),
        ("objective", OBJECTIVES, (ObjectiveConfig,)),
        ("update", UPDATES, (UpdateConfig,)),
        ("regularizer", REGULARIZERS, (RegularizerConfig,)),
    )
    for name in registry.names()
]
SHARED = [
    ("sampler complexity", LevelsConfig, (SamplerConfig,)),
    ("updates", UpdateConfig, ()),
    ("regularizers", RegularizerConfig, ()),
]


def _documented(section):
    return dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", _section(section), re.MULTILINE))


def _defaults(model, *bases):
    without = {"name", *(name for base in bases for name in base.model_fields)}
    found = {n: f.default for n, f in model.model_fields.items() if n not in without}
    return {name: "none" if value is None else str(value).lower() for name, value in found.items()}


@pytest.mark.parametrize(("section", "model", "bases"), SEAMS, ids=[s[0] for s in SEAMS])
def test_settings_of_a_training_plug_in_are_documented_with_their_defaults(section, model, bases):
    own = _defaults(model, *bases)
    assert f"`{section.split()[-1]}`" in PAGE
    if own:
        assert _documented(section) == own


@pytest.mark.parametrize(("section", "model", "bases"), SHARED, ids=[s[0] for s in SHARED])
def test_settings_that_training_plug_ins_share_are_documented(section, model, bases):
    assert _documented(section) == _defaults(model, *bases)


@pytest.mark.parametrize("kind", DEVICES.names())
def test_settings_of_a_kind_of_device_are_documented_with_their_defaults(kind):
    fields = DEVICES.get(kind).Config.model_fields
    own = {name: field for name, field in fields.items() if name not in DeviceConfig.model_fields}
    if not own:
        return
    row = r"^\| `(\w+)` \|(?: `?([\w.]+)`?)? \|"
    rows = re.findall(row, _section(f"devices of kind {kind}"), re.M)
    assert {name for name, _ in rows} == set(own)
    for name, shown in rows:
        assert own[name].is_required() == (not shown)
        if not shown:
            continue
        default = own[name].default
        assert type(default)("" if shown == "none" else 0 if shown == "false" else shown) == default


@pytest.mark.parametrize("name", DATASETS.names())
def test_settings_of_a_kind_of_data_set_are_documented_with_their_defaults(name):
    assert f"`{name}`" in _section("data")
    kind = DATASETS.get(name).settings_type
    if kind is DatasetSettings:
        return
    rows = re.findall(
        r"^\| `(\w+)` \|(?: `?([\w.]+)`?)? \|", _section(f"data settings of {name}"), re.M
    )
    assert {key for key, _ in rows} == set(kind.model_fields)
    for key, shown in rows:
        field = kind.model_fields[key]
        assert field.is_required() == (not shown)
        assert not shown or str(field.default).lower() == shown


def test_every_metric_and_unit_is_documented():
    text = _section("objectives and constraints")
    for name, metric in METRICS.items():
        assert f"`{name}`" in text
        assert any(f"`{unit}`" in text for unit in metric.units)
