"""FamilyConformance: the tests that every family passes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from spaces.config import Config
from spaces.dimension import Dimension, DimensionKind
from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import FLOAT_BITS
from spaces.space import SearchSpace
from supernet.extract import Subnet, load_subnet, save_subnet
from supernet.store import load_supernet, save_supernet
from supernet.supernet import Supernet
from supernet.testing.geometry import (
    check_choices,
    check_dimensions,
    check_layers,
    check_slots,
    in_float,
    random_configs,
)
from supernet.testing.modules import (
    check_channel_groups,
    check_cost,
    check_export,
    check_extraction,
    check_integers,
    check_views,
    sample_images,
    sample_supernet,
)


class FamilyConformance:
    """Tests of a family on one of its spaces, for pytest. Inherit, and give the fixture `space`:

        class TestMyFamily(FamilyConformance):
            @pytest.fixture(scope="class")
            def space(self):
                return get_space("my_space")

    The family and its supernet must be registered, by the package or by entry points.

    Attributes:
        configs: Random configs that are tried, besides the largest and the smallest.
        images: Random images that statistics are estimated on, and logits compared.
    """

    configs: ClassVar[int] = 4
    images: ClassVar[int] = 32
    _built: ClassVar[dict[str, Supernet]] = {}

    def module_space(self, space: SearchSpace) -> SearchSpace:
        """The restriction that supernets are built for; override it where `space` is too large."""
        return space

    def supernet(self, space: SearchSpace) -> Supernet:
        """A supernet that nobody changes but for its statistics; the last one is kept."""
        if space.key not in self._built:
            self._built.clear()
            self._built[space.key] = sample_supernet(self.module_space(space), self.images)
        return self._built[space.key]

    def subnet(self, supernet: Supernet) -> Subnet:
        """The smallest subnet, its layers in the narrowest and the widest precision by turns."""
        space = supernet.space
        mixed = {d.name: d.choices[-(i % 2)] for i, d in enumerate(_bits(space))}
        return supernet.extract(space.config({**space.min_config(), **mixed}))

    def test_dimensions_and_slots_agree(self, space: SearchSpace) -> None:
        check_dimensions(space)
        check_slots(space)

    def test_slots_read_what_they_say_and_every_choice_matters(self, space: SearchSpace) -> None:
        for config in random_configs(space, self.configs):
            check_choices(config)

    def test_layers_fit_together(self, space: SearchSpace) -> None:
        for config in random_configs(space, 8 * self.configs):
            check_layers(config)

    def test_a_space_survives_json(self, space: SearchSpace) -> None:
        again = SearchSpace.from_json(space.to_json())
        assert again.key == space.key, "the space's key is another one after JSON"
        for config in (space.max_config(), space.min_config()):
            layers = again.layer_specs(again.config(config))
            assert layers == space.layer_specs(config), "layers are others after JSON"
            for spec in layers:
                assert LayerSpec.from_json(spec.to_json()) == spec, f"{spec} is another after JSON"

    def test_activation_copies_nothing(self, space: SearchSpace) -> None:
        supernet = self.supernet(space)
        for config in self._configs(supernet):
            check_views(supernet, config)

    def test_extracted_subnets_equal_the_active_supernet(self, space: SearchSpace) -> None:
        supernet = self.supernet(space)
        images = sample_images(supernet.space, self.images, seed=1)
        for config in self._configs(supernet):
            check_extraction(supernet, config, images)
            if (floating := in_float(config)) != config:
                check_extraction(supernet, floating, images)

    def test_the_analytic_cost_is_exact(self, space: SearchSpace) -> None:
        supernet = self.supernet(space)
        for config in self._configs(supernet):
            check_cost(supernet.extract(config))

    def test_integers_are_those_that_are_trained(self, space: SearchSpace) -> None:
        supernet = self.supernet(space)
        compared = sum(check_integers(supernet, config) for config in self._configs(supernet))
        bits = {c for d in _bits(supernet.space) for c in d.choices}
        assert compared or bits <= {FLOAT_BITS}, "no config quantises a tensor"

    def test_torch_export_takes_a_subnet(self, space: SearchSpace) -> None:
        check_export(self.subnet(self.supernet(space)))

    def test_channels_may_be_reordered(self, space: SearchSpace) -> None:
        supernet = self.supernet(space)
        largest = supernet.space.max_config()
        if in_float(largest) == largest:
            check_channel_groups(supernet)

    def test_files_hold_everything(self, space: SearchSpace, tmp_path: Path) -> None:
        supernet = self.supernet(space)
        supernet.activate(supernet.space.max_config())
        save_supernet(supernet, tmp_path)
        loaded = load_supernet(tmp_path)
        x = sample_images(supernet.space, 2)
        with torch.no_grad():
            assert torch.equal(loaded(x), supernet(x)), "a loaded supernet computes something else"
        subnet = self.subnet(supernet)
        save_subnet(subnet, tmp_path / "subnet")
        again = load_subnet(tmp_path / "subnet")
        assert again.specs == subnet.specs, "layers of a loaded subnet are others"
        shape = (1, subnet.specs[0].in_channels, subnet.resolution, subnet.resolution)
        assert torch.equal(again(torch.ones(shape)), subnet(torch.ones(shape)))

    def _configs(self, supernet: Supernet) -> list[Config]:
        return random_configs(supernet.space, self.configs)


def _bits(space: SearchSpace) -> list[Dimension]:
    return [d for d in space.dimensions if d.kind is DimensionKind.W_BITS]
