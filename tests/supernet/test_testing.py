"""A plug-in passes the conformance tests through real entry points; what is broken fails them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spaces import SPACES, Dimension, DimensionKind, SearchSpace, get_space
from spaces.families import FAMILIES, ResNet
from supernet.families import SUPERNETS, ResNetSupernet
from supernet.testing import (
    FamilyConformance,
    check_channel_groups,
    check_choices,
    check_cost,
    check_dimensions,
    check_extraction,
    check_integers,
    check_layers,
    check_slots,
    check_views,
    random_configs,
    sample_images,
    sample_supernet,
)
from tests.supernet.resnets import basic_space

EXAMPLE = Path(__file__).parents[1] / "plugins" / "example_family"


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory):
    """The example package, installed where only this module sees it."""
    folder = tmp_path_factory.mktemp("plug-in")
    source = shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", folder / "site"]
    subprocess.run([*pip, *options, source], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "site"))
        yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "example_family"]:
        del sys.modules[name]


class TestPlugIn(FamilyConformance):
    @pytest.fixture(scope="class")
    def space(self, plug_in):
        return get_space("plain_cnn_small")

    def test_it_is_found_by_its_entry_points(self, space):
        assert "plain_cnn_small" in SPACES.names()
        for registry in (FAMILIES, SUPERNETS):
            assert "plain_cnn" in registry.names()
            assert registry.get("plain_cnn").__module__.startswith("example_family.")


class Broken(ResNet):
    """A ResNet whose dimensions or slots are changed."""

    def __init__(self, dimensions=lambda all_: all_, slot=lambda slot: slot):
        super().__init__(basic_space().family.settings)
        self.change_dimensions, self.change_slot = dimensions, slot

    def dimensions(self):
        return self.change_dimensions(super().dimensions())

    def slots(self):
        return tuple(self.change_slot(slot) for slot in super().slots())

    @property
    def space(self):
        return SearchSpace("broken", self)


def only(title, **changes):
    """A change of the slot called `title`; functions of the slot give its fields."""

    def change(slot):
        if slot.name != title:
            return slot
        return replace(slot, **{field: make(slot) for field, make in changes.items()})

    return change


def more(dimensions):
    return (*dimensions, Dimension("more", DimensionKind.BLOCK, (1, 2)))


def without(part):
    return lambda slot: tuple(name for name in slot.reads if not name.endswith(part))


def unresolved(slot):
    return replace(slot, reads=without("resolution")(slot))


def wider(slot):
    def layers(values):
        *others, last = slot.layers(values)
        return (*others, replace(last, out_channels=last.out_channels + 8))

    return layers


@pytest.mark.parametrize(
    ("family", "check", "message"),
    [
        (Broken(more), check_dimensions, r"no slot reads \['more'\]"),
        (
            Broken(lambda dimensions: dimensions[1:], unresolved),
            check_dimensions,
            "no dimension 'resolution'",
        ),
        (
            Broken(slot=only("stage1.block1", name=lambda slot: "second")),
            check_slots,
            "their names must begin with 'second'",
        ),
        (
            Broken(slot=only("stage2.block0", reads=lambda s: (*s.reads, "stage1.block1.kernel"))),
            check_slots,
            r"\['stage1.block1.kernel'\] begin with stage1.block1",
        ),
        (
            Broken(slot=only("stage1.block1", depth=lambda slot: ("stage1.width", 24))),
            check_slots,
            "'stage1.width' of the kind width",
        ),
        (
            Broken(slot=only("stage1.block0", reads=without("conv1.w_bits"))),
            check_choices,
            "layers of stage1.block0 depend on more than it reads",
        ),
        (
            Broken(slot=only("stage1.block0", reads=without("expansion"))),
            check_choices,
            "layers of stage1.block0 depend on more than it reads",
        ),
        (
            Broken(more, only("stem", reads=lambda slot: (*slot.reads, "more"))),
            check_choices,
            "more = [12] and [12] give the same layers",
        ),
        (
            Broken(slot=only("stage1.block0", layers=wider)),
            check_layers,
            r"adds \(channels, size\) \(24, 12\) to \(32, 12\)",
        ),
        (
            Broken(slot=only("tail", layers=wider)),
            check_layers,
            "writes .18, 1., not 10 logits",
        ),
    ],
)  # fmt: skip
def test_broken_geometry_is_found(family, check, message):
    space = family.space
    subjects = [space] if check in (check_dimensions, check_slots) else random_configs(space, 3)
    with pytest.raises(AssertionError, match=message):
        list(map(check, subjects))


@pytest.fixture(scope="module")
def space():
    return basic_space(schemes=("fp32", "w8a8"))


@pytest.fixture
def broken(monkeypatch, space):
    """A supernet of a class that differs from ResNet's in the methods that are given."""

    def build(**methods):
        monkeypatch.setitem(SUPERNETS._own, "resnet", type("Broken", (ResNetSupernet,), methods))
        return sample_supernet(space)

    return build


def moving(supernet):
    weight = supernet.stem.conv.weight
    weight.data = weight.data.clone()


def copying(supernet):
    supernet.copy = supernet.classifier.linear.weight_view().detach().clone()


@pytest.mark.parametrize(
    ("copy", "message"),
    [(moving, "moved parameters"), (copying, "does not follow the store")],
)
def test_copied_weights_are_found(broken, space, copy, message):
    def activate_specs(self, specs):
        ResNetSupernet.activate_specs(self, specs)
        copy(self)

    def forward(self, x):
        return ResNetSupernet.forward(self, x) + getattr(self, "copy", x).sum()

    supernet = broken(activate_specs=activate_specs, forward=forward)
    with pytest.raises(AssertionError, match=message):
        check_views(supernet, space.max_config())


def test_another_computation_is_found(broken, space):
    supernet = broken(forward=lambda self, x: 1.01 * ResNetSupernet.forward(self, x))
    with pytest.raises(AssertionError, match=r"the active .* differ by"):
        check_extraction(supernet, space.max_config(), sample_images(space, 32))


def test_a_forgotten_reader_is_found(broken):
    def channel_groups(self):
        groups = ResNetSupernet.channel_groups(self)
        return [replace(g, readers=g.readers[:-1]) if g.name == "stage1" else g for g in groups]

    with pytest.raises(AssertionError, match="reordered channels change"):
        check_channel_groups(broken(channel_groups=channel_groups))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_size": 24}, "multiply-accumulates, not"),
        ({"out_channels": 24}, "are not those of the layout"),
    ],
)
def test_a_wrong_cost_is_found(broken, space, change, message):
    subnet = broken().extract(space.max_config())
    check_cost(subnet)
    subnet.specs = (replace(subnet.specs[0], **change), *subnet.specs[1:])
    with pytest.raises(AssertionError, match=message):
        check_cost(subnet)


def test_other_integers_than_the_trained_ones_are_found(broken, space):
    supernet = broken()
    config = space.min_config()
    assert check_integers(supernet, config) > 10
    quantizer = supernet.layers()["stage1.block0.conv2"].input_quantizer
    original = quantizer.export_int
    quantizer.export_int = lambda x, scheme: original(x + 0.1, scheme)
    with pytest.raises(AssertionError, match=r"first|rest"):
        check_integers(supernet, config)
